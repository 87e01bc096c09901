import ipaddress

import pytest

from curate.fetch.addresses import Guard, is_public
from curate.fetch.config import FetchConfig

PUBLIC = (
    *("1.1.1.1", "8.8.8.8", "93.184.215.14", "100.63.255.255", "100.128.0.0", "168.63.129.15"),
    *(
        "172.15.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "192.167.255.255",
        "198.17.255.255",
        "223.255.255.255",
    ),
    *("2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "2001:200::1", "2003::1"),
)
REFUSED = {
    "private": ("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "fc00::1", "fd12::1"),
    "loopback": ("127.0.0.1", "127.255.255.254", "::1"),
    "link-local": ("169.254.0.1", "fe80::1", "fe80::1%eth0", "febf::1"),
    "multicast": ("224.0.0.1", "239.255.255.255", "ff02::1"),
    "reserved": ("240.0.0.1", "255.255.255.255", "0.1.2.3", "192.0.0.8", "4000::1", "5f00::1"),
    "unspecified": ("0.0.0.0", "::"),
    "shared": ("100.64.0.1", "100.127.255.255"),
    "documentation": ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"),
    "benchmark": ("198.18.0.1", "198.19.255.255", "2001:2::1"),
    "mapped": ("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:0:1.2.3.4"),
    "compatible": ("::127.0.0.1", "::8.8.8.8"),
    "nat64": ("64:ff9b::7f00:1", "64:ff9b::808:808", "64:ff9b:1::a00:1"),
    "6to4": ("2002:7f00:1::1", "2002:808:808::1", "192.88.99.1"),
    "teredo": ("2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
    "site-local": ("fec0::1",),
    "metadata": (
        "169.254.169.254",
        "fd00:ec2::254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
    ),
    "zone": ("2606:4700::1%eth0",),
}


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_may_be_connected_to(text):
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", [text for texts in REFUSED.values() for text in texts])
def test_all_others_may_not(text):
    assert not is_public(ipaddress.ip_address(text))
    assert not Guard(FetchConfig()).is_allowed(text)


@pytest.mark.parametrize(
    "text", ["2130706433", "0x7f.1", "127.1", "localhost", "", "1.2.3.4.5", "::1::"]
)
def test_what_is_no_plain_address_may_not(text):
    assert not Guard(FetchConfig(allow_networks=["0.0.0.0/0", "::/0"])).is_allowed(text)


def test_networks_are_opened_by_what_is_typed_alone():
    guard = Guard(FetchConfig(allow_networks=["127.0.0.0/8", "fd12::/16"]))
    assert [guard.is_allowed(text) for text in ("127.9.9.9", "fd12::5", "8.8.8.8")] == [True] * 3
    assert [guard.is_allowed(text) for text in ("10.0.0.1", "::ffff:127.0.0.1", "fd13::1")] == [
        False
    ] * 3


def test_hosts_are_exempt_by_name_or_with_a_port():
    guard = Guard(
        FetchConfig(allow_hosts=["Intranet.example", "other.example:8080", "10.0.0.7", "[::1]:81"])
    )
    assert guard.is_exempt("intranet.example.", 80)
    assert guard.is_exempt("other.example", 8080)
    assert guard.is_exempt("10.0.0.7", 9000)
    assert guard.is_exempt("::1", 81)
    assert not guard.is_exempt("other.example", 80)
    assert not guard.is_exempt("a.intranet.example", 80)
    assert not guard.is_exempt("::1", 80)
