"""Pictures signed for tests with Content Credentials, by certificates that nobody trusts."""

import datetime
import io
from functools import cache

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from PIL import Image

_MIME = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
_SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def picture(kind="JPEG", **options):
    stream = io.BytesIO()
    Image.new("RGB", (48, 40), "olive").save(stream, kind, **options)
    return stream.getvalue()


def training(use, name="ai_generative_training", by="cawg"):
    return {"label": f"{by}.training-mining", "data": {"entries": {f"{by}.{name}": {"use": use}}}}


def created(source):
    action = {"action": "c2pa.created", "digitalSourceType": _SOURCES + source}
    return {"label": "c2pa.actions", "data": {"actions": [action]}}


def signed(*assertions, kind="JPEG", made_from=None, remote=None):
    """A picture with these assertions; of another one, or with its manifest at an address only."""
    opened = {"label": "c2pa.actions", "data": {"actions": [{"action": "c2pa.opened"}]}}
    content = {
        "claim_generator_info": [{"name": "test", "version": "1"}],
        "assertions": list(assertions),
    }
    builder = c2pa.Builder(content)
    source = made_from or picture(kind)
    if made_from:
        content["assertions"].append(opened)
        ingredient = {"title": "before", "relationship": "componentOf"}
        builder.add_ingredient(ingredient, _MIME[kind], io.BytesIO(made_from))
        source = picture(kind)
    if remote:
        builder.set_remote_url(remote)
        builder.set_no_embed()
    found = io.BytesIO()
    manifest = builder.sign(_signer(), _MIME[kind], io.BytesIO(source), found)
    return (found.getvalue(), manifest) if remote else found.getvalue()


@cache
def _certificates():
    """Certificate chain and key of a signer: C2PA asks for the use ``emailProtection``, or its own."""
    now = datetime.datetime.now(datetime.UTC)
    above, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

    def certificate(name, number, public, is_authority):
        uses = dict.fromkeys(_KEY_USES, False) | (
            {"key_cert_sign": True} if is_authority else {"digital_signature": True}
        )
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name("authority"))
            .public_key(public)
            .serial_number(number)
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(is_authority, None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
            .add_extension(x509.KeyUsage(**uses), True)
        )

    root = certificate("authority", 1, above.public_key(), True).sign(above, hashes.SHA256())
    leaf = (
        certificate("signer", 2, key.public_key(), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), False
        )
        .add_extension(
            x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False
        )
        .sign(above, hashes.SHA256())
    )
    chain = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in (leaf, root))
    return chain, key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


_KEY_USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def _name(common):
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _signer():
    return c2pa.Signer.from_info(c2pa.C2paSignerInfo(b"es256", *_certificates(), None))
