"""The HTTP side of the gateway: what a request may look like, which filters it passes, how errors look.

The order is CORS (where web pages may ask), jwt_authn, Lua, router. Lua decides everything; a request that it
let through without naming a deployment finds no cluster and is answered 503, so a fault in it opens nothing.
"""

from typing import Any

from resources.gateway.envoy_cors import cors_filters, cors_policy
from resources.gateway.envoy_ends import OVERLOADED, ends_log
from resources.gateway.envoy_settings import GatewaySettings
from resources.gateway.lua_texts import lua_text
from resources.gateway.metrics import without_a_chosen_cluster
from resources.gateway.shards import CHOOSE_IN_LUA, HEADER
from resources.json_values import Json

JWT_FILTER = "jwt"
LUA_FILTER = "lua"


_TYPES = "type.googleapis.com/envoy.extensions"
_FOR_ENVOY_ALONE = ("x-forwarded-for", "x-forwarded-proto", "x-envoy-external-address", HEADER)
_JWT_TYPE = f"{_TYPES}.filters.http.jwt_authn.v3.JwtAuthentication"
_HIDDEN_HEADERS = ("server", "x-envoy-upstream-service-time", "x-envoy-decorator-operation")

_MALFORMED = "The request is not well-formed HTTP, or its path or a header has a form that is refused here."
# The answers that Envoy gives itself: status -> type, code, message with Envoy's own reason in it.
ERRORS = {
    400: ("invalid_request_error", "bad_request", _MALFORMED),
    401: ("invalid_request_error", "invalid_api_key", "The token is not valid here: %LOCAL_REPLY_BODY%."),
    403: ("invalid_request_error", "permission_denied", "This is not allowed here."),
    408: ("invalid_request_error", "request_timeout", "The request was not received in time."),
    413: (
        "invalid_request_error",
        "request_too_large",
        "The body of the request is larger than {max_body} MiB.",
    ),
    431: (
        "invalid_request_error",
        "headers_too_large",
        "The headers of the request are too large or too many.",
    ),
    502: ("server_error", "bad_gateway", "The deployment broke off its answer. Ask again."),
    503: ("server_error", "model_not_live", "No live deployment can answer now. Ask again."),
    504: ("server_error", "timeout", "The deployment did not answer in time."),
}
ANY_OTHER = ("server_error", "internal_error", "The gateway could not answer: %LOCAL_REPLY_BODY%")


def connection_manager(settings: GatewaySettings) -> Json:
    """The HTTP connection manager: strict about what comes in, and the same request for every filter."""
    return {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "door",
        "server_header_transformation": "PASS_THROUGH",
        **_strictness(settings),
        **_request_id(),
        "request_headers_timeout": f"{settings.request_headers_s}s",
        "request_timeout": f"{settings.request_s}s",
        "stream_idle_timeout": f"{settings.answer_idle_s + settings.request_s}s",
        "delayed_close_timeout": "1s",
        "access_log": [ends_log(settings.folder)],
        "local_reply_config": local_replies(settings),
        "http_filters": [
            *cors_filters(settings),
            _jwt_filter(settings),
            _lua_filter(settings),
            _filter("envoy.filters.http.router", "router.v3.Router"),
        ],
        "route_config": _routes(settings),
    }


def _strictness(settings: GatewaySettings) -> Json:
    """Who the client is, is what its connection says; paths have one spelling; nothing is read two ways."""
    return {
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "strip_any_host_port": True,
        "strip_trailing_host_dot": True,
        "early_header_mutation_extensions": [without_a_chosen_cluster()],
        "max_request_headers_kb": settings.max_header_kib,
        "common_http_protocol_options": {
            "idle_timeout": f"{settings.connection_idle_s}s",
            "max_headers_count": settings.max_headers,
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "http_protocol_options": {"accept_http_10": False, "allow_chunked_length": False},
        "http2_protocol_options": {
            "max_concurrent_streams": 128,
            "initial_stream_window_size": 256 * 1024,
            "initial_connection_window_size": 1024 * 1024,
        },
    }


def _request_id() -> Json:
    """A plain random UUID on every request, whatever the client sent.

    Of responses the filter says it, and `local_replies` where no filter is asked: Envoy by itself would give
    a client's own back with what it refuses before it has made one.
    """
    uuid = {"@type": f"{_TYPES}.request_id.uuid.v3.UuidRequestIdConfig", "pack_trace_reason": False}
    return {
        "generate_request_id": True,
        "preserve_external_request_id": False,
        "request_id_extension": {"typed_config": uuid},
    }


def _filter(name: str, kind: str, **config: Any) -> Json:
    return {"name": name, "typed_config": {"@type": f"{_TYPES}.filters.http.{kind}", **config}}


def _jwt_filter(settings: GatewaySettings) -> Json:
    """Follows `xds/jwt.json`. Until that can be read no token is verified, and Lua refuses all of them."""
    return {
        "name": JWT_FILTER,
        "config_discovery": {
            "config_source": {
                "path_config_source": {"path": str(settings.jwt)},
                "resource_api_version": "V3",
            },
            "type_urls": [_JWT_TYPE],
            "default_config": no_tokens(),
            "apply_default_config_without_warming": True,
        },
    }


def no_tokens() -> Json:
    """A jwt_authn that verifies none, so that no request has the claims which alone Lua goes by."""
    return {"@type": _JWT_TYPE}


def jwt_discovery(config: Json, version: str) -> Json:
    """The content of `xds/jwt.json` that makes Envoy take that configuration of jwt_authn."""
    resource = {
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": JWT_FILTER,
        "typed_config": config,
    }
    return {"version_info": version, "resources": [resource]}


def _lua_filter(settings: GatewaySettings) -> Json:
    return _filter(LUA_FILTER, "lua.v3.Lua", default_source_code={"inline_string": lua_source(settings)})


def lua_source(settings: GatewaySettings) -> str:
    """The few lines that Envoy loads; the filter itself is the module `gateway` of the Lua folder."""
    path, home, domain = (
        lua_text(text)
        for text in (f"{settings.lua_folder}/?.lua;", str(settings.folder.parent), settings.domain)
    )
    refusals = f"{{recorded = {settings.refusals_recorded}, most = {settings.strangers_a_minute}}}"
    return (
        f"package.path = {path} .. package.path\n"
        'local gateway = require("gateway")\n'
        f"gateway.configure{{home = {home}, domain = {domain}, body_bytes = {settings.max_body_bytes}, "
        f"bodies_bytes = {settings.held_bytes}, refusals = {refusals}}}\n"
        f"{CHOOSE_IN_LUA}"
        "function envoy_on_request(handle) choose_cluster(handle, gateway.on_request(handle)) end\n"
        "function envoy_on_response(handle) gateway.on_response(handle) end\n"
    )


def _routes(settings: GatewaySettings) -> Json:
    """One route for all: the filter has said in the request's metadata which deployment answers."""
    action = {
        "cluster_header": HEADER,
        "timeout": "0s",
        "idle_timeout": f"{settings.answer_idle_s + settings.request_s}s",
        "retry_policy": _retries(settings),
    }
    host: Json = {
        "name": "tenants",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": action}],
        "request_headers_to_remove": list(_FOR_ENVOY_ALONE),
        "response_headers_to_remove": list(_HIDDEN_HEADERS),
        **cors_policy(settings),
    }
    return {"name": "tenants", "virtual_hosts": [host]}


def _retries(settings: GatewaySettings) -> Json:
    """Only before the first byte of an answer, and only of requests that no server has begun to answer."""
    predicate = "retry.host.previous_hosts.v3.PreviousHostsPredicate"
    return {
        "retry_on": "connect-failure,refused-stream,reset-before-request,retriable-status-codes",
        "retriable_status_codes": [503],
        "num_retries": 3,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{_TYPES}.{predicate}"},
            }
        ],
        "host_selection_retry_max_attempts": 5,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
        "per_try_idle_timeout": f"{settings.answer_idle_s}s",
    }


def local_replies(settings: GatewaySettings) -> Json:
    """Envoy's own answers in OpenAI's shape. What Lua answers is in it already and stays as it is."""
    return {
        "mappers": [
            {"filter": _code_details("lua_response")},
            _overloaded(settings),
            *(_mapper(settings, status) for status in ERRORS),
            {
                "filter": _status_filter("GE", 400),
                "body_format_override": _openai_error(*ANY_OTHER),
                "headers_to_add": [_header("x-request-id", "%REQ(X-REQUEST-ID)%")],
            },
        ]
    }


def _mapper(settings: GatewaySettings, status: int) -> Json:
    kind, code, message = ERRORS[status]
    text = message.replace("{max_body}", f"{settings.max_body_bytes / 2**20:g}")
    mapper: Json = {
        "filter": _status_filter("EQ", status),
        "body_format_override": _openai_error(kind, code, text),
        "headers_to_add": [_header("x-request-id", "%REQ(X-REQUEST-ID)%")],
    }
    if status == 503:
        mapper["headers_to_add"].append(_header("retry-after", str(settings.retry_after_s)))
    return mapper


def _header(name: str, value: str) -> Json:
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _overloaded(settings: GatewaySettings) -> Json:
    """Short of memory, Envoy answers before any filter has given the request an id."""
    message = f"The gateway has no memory for more requests now. Try again in {settings.retry_after_s} s."
    told = {"retry-after": str(settings.retry_after_s), "x-request-id": "%UNIQUE_ID%"}
    return {
        "filter": _code_details(OVERLOADED),
        "body_format_override": _openai_error("server_error", "overloaded", message),
        "headers_to_add": [_header(name, value) for name, value in told.items()],
    }


def _openai_error(kind: str, code: str, message: str) -> Json:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return {"json_format": {"error": error}, "content_type": "application/json"}


def _status_filter(op: str, status: int) -> Json:
    value = {"default_value": status, "runtime_key": "gateway.unused"}
    return {"status_code_filter": {"comparison": {"op": op, "value": value}}}


def _code_details(details: str) -> Json:
    config = {
        "@type": f"{_TYPES}.access_loggers.filters.cel.v3.ExpressionFilter",
        "expression": f"response.code_details == '{details}'",
    }
    return {
        "extension_filter": {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": config}
    }
