"""A small S3 on loopback: objects in memory, listings in pages, ranges, uploads whole and in parts, and failures."""

import hashlib
import itertools
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test-key",
    "AWS_SECRET_ACCESS_KEY": "test-secret",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1",
}


class Server:
    """Attributes:
    objects: bytes by ``bucket/key``. changed: when each was written.
    asked: method, path and range of each request.
    fail: says of method and path whether the request is answered with ``status``: 403 unless it is set.
    """

    def __init__(self):
        self.objects, self.changed, self.asked, self.parts = {}, {}, [], {}
        self.fail = lambda method, path: False
        self.status = 403
        self.page = 1000
        self.uploads = itertools.count()

    def put(self, name, data):
        self.objects[name] = data
        self.changed[name] = time.time()

    def tag(self, name):
        return hashlib.md5(self.objects[name]).hexdigest()


@contextmanager
def running():
    """A server, with the environment that leads to it in ``server.environment``."""
    server = Server()
    handler = type("Handler", (_Handler,), {"server_of": server})
    web = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    web.daemon_threads = True
    endpoint = f"http://127.0.0.1:{web.server_port}"
    server.environment = {**ENVIRONMENT, "AWS_ENDPOINT_URL_S3": endpoint}
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        web.shutdown()
        web.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each answer waits 40 ms
    wbufsize = 2**16

    def log_message(self, *_):
        pass

    def _begin(self):
        parts = urlsplit(self.path)
        self.name = unquote(parts.path).lstrip("/")  # a folder's marker ends with /
        self.query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        self.body = self._read_body()
        self.server_of.asked.append((self.command, self.name, self.headers.get("Range", "")))
        if self.server_of.fail(self.command, self.name):
            status = self.server_of.status
            code = "AccessDenied" if status == 403 else "Other"
            told = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
            self._answer(status, told.encode())
            return False
        return True

    def handle_expect_100(self):
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def _read_body(self):
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            data = b"".join(iter(self._chunk, b""))
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return data
        whole, at = b"", 0
        while size := int(data[at : (end := data.index(b"\r\n", at))].split(b";")[0], 16):
            whole += data[end + 2 : end + 2 + size]
            at = end + 2 + size + 2
        return whole

    def _chunk(self):
        data = self.rfile.read(int(self.rfile.readline().split(b";")[0], 16))
        self.rfile.readline()
        return data

    def _answer(self, status, data=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_HEAD(self):
        if self._begin():
            self._object()

    def do_GET(self):
        if not self._begin():
            return
        if "list-type" in self.query:
            self._list()
        else:
            self._object()

    def _object(self):
        server = self.server_of
        if "/" not in self.name.rstrip("/"):  # a bucket
            bucket = self.name.rstrip("/")
            there = any(name.startswith(f"{bucket}/") for name in server.objects)
            return self._answer(200 if there else 404)
        data = server.objects.get(self.name)
        if data is None:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        changed = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(server.changed[self.name]))
        headers = {"ETag": f'"{server.tag(self.name)}"', "Last_Modified": changed}
        status, whole = 200, len(data)
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(found[1]), int(found[2] or whole - 1)
            if start >= whole:
                return self._answer(416)
            data, status = data[start : end + 1], 206
            headers["Content_Range"] = f"bytes {start}-{start + len(data) - 1}/{whole}"
        headers["Content_Length"] = str(len(data))
        return self._answer(status, data, **headers)

    def _list(self):
        server, bucket = self.server_of, self.name.rstrip("/")
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        after = self.query.get("continuation-token", "")
        keys = sorted(n[len(bucket) + 1 :] for n in server.objects if n.startswith(f"{bucket}/"))
        found, folders = [], set()
        for key in (key for key in keys if key.startswith(prefix)):
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.split(delimiter)[0] + delimiter)
            elif key > after:
                found.append(key)
        page = min(server.page, int(self.query.get("max-keys") or server.page))
        more, found = len(found) > page, found[:page]
        stamp = "%Y-%m-%dT%H:%M:%S.000Z"
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(server.objects[f'{bucket}/{key}'])}</Size>"
            f"<LastModified>{time.strftime(stamp, time.gmtime(server.changed[f'{bucket}/{key}']))}"
            f'</LastModified><ETag>"{server.tag(f"{bucket}/{key}")}"</ETag></Contents>'
            for key in found
        )
        if not after:
            rows += "".join(
                f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
                for folder in sorted(folders)
            )
        token = (
            f"<NextContinuationToken>{escape(found[-1])}</NextContinuationToken>" if more else ""
        )
        self._answer(
            200,
            f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(found)}</KeyCount><MaxKeys>{page}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}</ListBucketResult>".encode(),
            Content_Type="application/xml",
        )

    def do_PUT(self):
        if not self._begin():
            return
        server = self.server_of
        if "uploadId" in self.query:
            server.parts[self.query["uploadId"]][int(self.query["partNumber"])] = self.body
        else:
            server.put(self.name, self.body)
        self._answer(200, ETag=f'"{hashlib.md5(self.body).hexdigest()}"')

    def do_POST(self):
        if not self._begin():
            return
        server = self.server_of
        if "uploads" in self.query:
            upload = f"u{next(server.uploads)}"
            server.parts[upload] = {}
            told = f"<UploadId>{upload}</UploadId>"
            self._answer(
                200,
                f"<InitiateMultipartUploadResult>{told}</InitiateMultipartUploadResult>".encode(),
            )
        elif "uploadId" in self.query:
            parts = server.parts.pop(self.query["uploadId"])
            server.put(self.name, b"".join(parts[number] for number in sorted(parts)))
            tag = f"<ETag>{server.tag(self.name)}</ETag>"
            self._answer(
                200,
                f"<CompleteMultipartUploadResult>{tag}</CompleteMultipartUploadResult>".encode(),
            )
        else:
            self._answer(400)

    def do_DELETE(self):
        if self._begin():
            self.server_of.objects.pop(self.name, None)
            self._answer(204)
