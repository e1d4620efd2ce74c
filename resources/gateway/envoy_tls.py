"""TLS for clients: a certificate that counts as soon as it is renewed, for connections that begin then.

Envoy watches the certificate's folder for what is renamed into it, as certbot, cert-manager and a mounted
Kubernetes secret renew; a file that is overwritten where it stands counts from the next start on. Where
certificate and key do not fit together, as between two renames, the old pair goes on.
"""

import ssl

from resources.gateway.envoy_settings import GatewaySettings
from resources.gateway.errors import GatewayError
from resources.json_values import Json

NAME = "door"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"


def transport_socket(settings: GatewaySettings) -> Json:
    """TLS 1.2 and 1.3 with the certificate that `xds/certificate.json` names."""
    followed = {"path_config_source": {"path": str(settings.secret)}, "resource_api_version": "V3"}
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [{"name": NAME, "sds_config": followed}],
        "alpn_protocols": ["h2", "http/1.1"],
    }
    config = {"@type": f"{_TLS}.DownstreamTlsContext", "common_tls_context": common}
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def secret_discovery(settings: GatewaySettings) -> Json:
    """The content of `xds/certificate.json`: names of files, no secret. Without TLS it names none."""
    if settings.certificate is None:
        return {"version_info": "1", "resources": []}
    pair = {
        "certificate_chain": {"filename": str(settings.certificate)},
        "private_key": {"filename": str(settings.key)},
        "watched_directory": {"path": str(settings.certificate.parent)},
    }
    secret = {"@type": f"{_TLS}.Secret", "name": NAME, "tls_certificate": pair}
    return {"version_info": "1", "resources": [secret]}


def require_pair(settings: GatewaySettings) -> None:
    """Envoy would start without a certificate that it cannot use, and reset every connection.

    Raises:
        GatewayError: They cannot be read, or the key is not the certificate's.
    """
    assert settings.certificate is not None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.certificate, settings.key)
    except (ssl.SSLError, OSError) as fault:
        raise GatewayError(
            f"The gateway cannot use the certificate {settings.certificate} with the key {settings.key}: "
            f"{fault}. Both have to be PEM, without a passphrase, and the key the certificate's own."
        ) from fault
