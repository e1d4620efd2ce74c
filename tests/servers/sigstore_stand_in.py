"""A stand-in for Sigstore, which no test reaches: Fulcio, its certificate transparency log, Rekor (v1), and
GitHub Actions' identity tokens, with keys made anew. What a client checks of their answers is real.

A log holds one entry, so that its root is the hash of that. Formats: RFC 6962 (timestamps of certificates),
https://github.com/sigstore/rekor/blob/main/openapi.yaml,
https://github.com/transparency-dev/formats/blob/main/log/README.md (checkpoints).
"""

import base64
import hashlib
import json
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ISSUER = "https://token.actions.githubusercontent.com"
IDENTITY = "https://github.com/acme/models/.github/workflows/train.yml@refs/heads/main"
REQUEST_TOKEN = "of-the-workflow"
SHA256_ECDSA = bytes([4, 3])  # of RFC 5246, 7.4.1.4.1
TIMESTAMPS = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
OIDC_ISSUER = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
HOW = ec.ECDSA(hashes.SHA256())
SINCE = {"start": "2020-01-01T00:00:00Z"}


class Key:
    """A key and the id by which logs know it: the SHA-256 of its public half."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.public_der = self.private.public_key().public_bytes(*form)
        self.id = hashlib.sha256(self.public_der).digest()

    def sign(self, data: bytes) -> bytes:
        return self.private.sign(data, HOW)


class Sigstore:
    """The services' answers. Whoever is named in `down` answers 503."""

    def __init__(self) -> None:
        self.authority_key, self.transparency_key, self.rekor_key = Key(), Key(), Key()
        self.authority = self._authority()
        self.entries: list[dict[str, Any]] = []
        self.down: set[str] = set()

    def _authority(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in for Fulcio")])
        builder = _certificate(name, name, self.authority_key, self.authority_key, days=30)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(key_cert_sign=True), critical=True)
        return builder.sign(self.authority_key.private, hashes.SHA256())

    def trust_config(self, url: str) -> dict[str, Any]:
        """A client's trust configuration, as an installation with a Sigstore of its own has it."""

        def log(key: Key) -> dict[str, Any]:
            public = {"rawBytes": _b64(key.public_der), "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
            return {
                "baseUrl": url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": {**public, "validFor": SINCE},
                "logId": {"keyId": _b64(key.id)},
            }

        chain = [{"rawBytes": _b64(self.authority.public_bytes(serialization.Encoding.DER))}]
        authority = {
            "subject": {"organization": "tests", "commonName": "stand-in for Fulcio"},
            "uri": url,
            "validFor": SINCE,
        }
        service = [{"url": url, "majorApiVersion": 1, "validFor": SINCE, "operator": "tests"}]
        kind = "application/vnd.dev.sigstore"
        return {
            "mediaType": f"{kind}.clienttrustconfig.v0.1+json",
            "trustedRoot": {
                "mediaType": f"{kind}.trustedroot+json;version=0.1",
                "tlogs": [log(self.rekor_key)],
                "ctlogs": [log(self.transparency_key)],
                "certificateAuthorities": [{**authority, "certChain": {"certificates": chain}}],
            },
            "signingConfig": {
                "mediaType": f"{kind}.signingconfig.v0.2+json",
                "caUrls": service,
                "oidcUrls": service,
                "rekorTlogUrls": service,
                "rekorTlogConfig": {"selector": "ANY"},
                "tsaConfig": {"selector": "ANY"},
            },
        }

    def identity_token(self) -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": IDENTITY, "aud": "sigstore", "iat": now, "exp": now + 300}
        return jwt.encode(claims, os.urandom(32), algorithm="HS256")  # only Fulcio checks it

    def certify(self, token: str, request: dict[str, Any]) -> dict[str, Any]:
        """Fulcio: a certificate for the identity of the token, with the timestamp of a log within it."""
        claims = jwt.decode(token, options={"verify_signature": False})
        asked = x509.load_pem_x509_csr(base64.b64decode(request["certificateSigningRequest"]))
        builder = (
            _certificate(x509.Name([]), self.authority.subject, asked, self.authority_key, days=1)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(claims["sub"])]), critical=True
            )
            .add_extension(x509.UnrecognizedExtension(OIDC_ISSUER, claims["iss"].encode()), critical=False)
        )
        certificate = self._with_timestamp(builder)
        pems = [
            each.public_bytes(serialization.Encoding.PEM).decode() for each in (certificate, self.authority)
        ]
        return {"signedCertificateEmbeddedSct": {"chain": {"certificates": pems}}}

    def _with_timestamp(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """What is signed is the certificate without the timestamp, so it is made twice."""

        def made(signature: bytes) -> x509.Certificate:
            extension = x509.UnrecognizedExtension(TIMESTAMPS, self._timestamps(at_ms, signature))
            whole = builder.add_extension(extension, critical=False)
            return whole.sign(self.authority_key.private, hashes.SHA256())

        at_ms = int(time.time() * 1000)
        content = made(b"none yet").tbs_precertificate_bytes
        head = struct.pack("!BBQH", 0, 0, at_ms, 1) + self.authority_key.id
        signed = head + struct.pack("!I", len(content))[1:] + content + b"\0\0"
        return made(self.transparency_key.sign(signed))

    def _timestamps(self, at_ms: int, signature: bytes) -> bytes:
        one = struct.pack("!B32sQH", 0, self.transparency_key.id, at_ms, 0)
        one += SHA256_ECDSA + struct.pack("!H", len(signature)) + signature
        listed = struct.pack("!HH", len(one) + 2, len(one)) + one
        return bytes([0x04, len(listed)]) + listed  # a DER octet string of less than 128 bytes

    def log(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """Rekor: the entry with its promise (signed time) and its proof (signed root)."""
        content = proposed["spec"]["proposedContent"]
        envelope = json.loads(content["envelope"])
        signatures = [
            {"signature": each["sig"], "verifier": content["verifiers"][0]} for each in envelope["signatures"]
        ]
        spec = {
            "envelopeHash": _hash_of(content["envelope"].encode()),
            "payloadHash": _hash_of(base64.b64decode(envelope["payload"])),
            "signatures": signatures,
        }
        body = json.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec}).encode()
        entry = {
            "body": _b64(body),
            "integratedTime": int(time.time()),
            "logID": self.rekor_key.id.hex(),
            "logIndex": 0,
        }
        promise = self.rekor_key.sign(json.dumps(entry, sort_keys=True, separators=(",", ":")).encode())
        root = hashlib.sha256(b"\0" + body).digest()
        proof = {"checkpoint": self._checkpoint(root), "hashes": [], "logIndex": 0}
        proof |= {"rootHash": root.hex(), "treeSize": 1}
        self.entries.append(entry)
        return {
            root.hex(): {
                **entry,
                "verification": {"inclusionProof": proof, "signedEntryTimestamp": _b64(promise)},
            }
        }

    def _checkpoint(self, root: bytes) -> str:
        note = f"rekor.stand-in - 1\n1\n{_b64(root)}\n"
        signature = _b64(self.rekor_key.id[:4] + self.rekor_key.sign(note.encode()))
        return f"{note}\n\N{EM DASH} rekor.stand-in {signature}\n"


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    holder: Key | x509.CertificateSigningRequest,
    signer: Key,
    *,
    days: int,
) -> x509.CertificateBuilder:
    public = holder.private.public_key() if isinstance(holder, Key) else holder.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    now = datetime.now(UTC)
    known = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.private.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(known, critical=False)
    )


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _hash_of(data: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()}


@contextmanager
def serve(sigstore: Sigstore) -> Iterator[str]:
    """All services at one address."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/.well-known/openid-configuration"):
                endpoints = ("authorization_endpoint", "token_endpoint")
                self._send(200, dict.fromkeys(endpoints, f"{url}/nobody-logs-in"))
            elif self.headers["authorization"] == f"bearer {REQUEST_TOKEN}":
                self._send(200, {"value": sigstore.identity_token()})
            else:
                self._send(404, {})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            service = "fulcio" if self.path == "/api/v2/signingCert" else "rekor"
            if service in sigstore.down:
                self._send(503, {"message": f"{service} is down"})
            elif service == "fulcio":
                token = self.headers["authorization"].removeprefix("Bearer ")
                self._send(200, sigstore.certify(token, asked))
            else:
                self._send(201, sigstore.log(asked))

        def _send(self, status: int, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
