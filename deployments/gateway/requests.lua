-- What happens to a request, in this order: door, credentials, body, access, route, limits, record. Only then is it told
-- to Envoy which deployment it goes to; without that Envoy has nowhere to send it.
local access = require("access")
local alarms = require("alarms")
local bodies = require("bodies")
local credentials = require("credentials")
local doors = require("doors")
local exchanges = require("exchanges")
local incoming = require("incoming")
local limits = require("limits")
local listing = require("listing")
local outgoing = require("outgoing")
local posix = require("posix")
local records = require("records")
local refusals = require("refusals")
local registry = require("registry")
local request_ids = require("request_ids")
local routing = require("routing")

local MODELS, EMBEDDINGS = "/v1/models", "/v1/embeddings"
local NO_TENANT = { name = "", models = {} }
local SUBJECT_BYTES = 1024

local requests = {}

-- Who asks at this door as the journals say now; nil and a refusal.
local function identify(handle, sent, name)
  local tenant = registry.tenant(name)
  local identity, reason, owner = credentials.identify(handle, sent, tenant or NO_TENANT)
  if identity and tenant then return identity, tenant end
  return nil, refusals.unauthorized(tenant and reason or "unknown_tenant"), tenant, owner
end

local function authenticate(handle, known, name)
  local identity, tenant, door, owner = identify(handle, known.sent, name)
  if identity then
    known.tenant, known.key = name, identity.id
    return identity, tenant
  end
  known.tenant, known.key = door and name or nil, owner and owner.id
  return refusals.answer(handle, known, tenant)
end

-- The body's text, whole; a refusal where there is none that can be read.
local function take_body(handle, known)
  local encoding = known.sent.values["content-encoding"]
  if encoding and encoding:lower() ~= "identity" then return refusals.answer(handle, known, refusals.ENCODED) end
  local body = handle:body()
  if not body or body:length() == 0 then return refusals.answer(handle, known, refusals.NO_BODY) end
  return body
end

local function subject_of(sent, user)
  local subject = sent.values["x-llm-subject"]
  return subject and subject ~= "" and subject:sub(1, SUBJECT_BYTES) or user
end

-- Where the request goes; nil and a refusal.
local function find_backend(exchange, tenant, asked, affinity)
  local model, version = routing.split(asked.model)
  local risk_class, status, reason = access.check(exchange.identity, tenant, model)
  if not risk_class then
    return nil, status == 404 and refusals.no_model(asked.model) or refusals.forbidden(reason, model)
  end
  exchange.known.model = model
  local route = registry.route(tenant.name, model)
  local backend, missing = routing.choose(route, version, affinity)
  if not backend then return nil, missing == 503 and refusals.not_live(model) or refusals.no_model(asked.model) end
  exchange.model, exchange.route, exchange.backend = model, route, backend
  exchange.risk_class, exchange.keeps_text = risk_class, risk_class == "high"
  return backend
end

local function rate_headers(ticket)
  local most, remaining, reset_s = limits.remaining(ticket)
  if not most then return {} end
  return {
    ["x-ratelimit-limit-requests"] = string.format("%.0f", most),
    ["x-ratelimit-remaining-requests"] = string.format("%.0f", remaining),
    ["x-ratelimit-reset-requests"] = string.format("%.3fs", reset_s),
  }
end

-- Counts the request and puts it on the record, or refuses it and does neither.
local function admit(handle, known, exchange, tenant, asked)
  local ticket, reason, retry_s, full = limits.admit(exchange.identity, tenant)
  if not ticket then
    return refusals.answer(handle, known, refusals.limited(reason, retry_s, rate_headers(full)))
  end
  local recorded, why = records.request(exchange, asked)
  if not recorded then
    limits.settle(ticket, 0)
    alarms.raise(handle, "a request is not on the record", why)
    known.requested = nil
    return refusals.answer(handle, known, refusals.AUDIT_UNAVAILABLE)
  end
  exchanges.recorded(exchange, ticket)
  exchange.rate_headers = #ticket > 0 and rate_headers(ticket) or {}
  return ticket
end

local function send_on(handle, exchange, asked, body)
  local text = bodies.for_model(asked, exchange.route.model_json)
  if text ~= asked.body then body:setBytes(text) end
  outgoing.dress(handle:headers(), exchange.known.sent, exchange.endpoint, exchange.route.authorization)
  local deployment = exchange.backend.deployment
  handle:streamInfo():dynamicMetadata():set("envoy.lb", "deployment", deployment)
  return deployment
end

local function ask(handle, known, identity, tenant, endpoint)
  local exchange = exchanges.start(handle)
  exchange.id, exchange.at, exchange.host, exchange.path = known.id, known.at, known.host, known.path
  exchange.tenant, exchange.identity, exchange.endpoint = tenant.name, identity, endpoint
  exchange.remote, exchange.known = known.remote, known
  local version = registry.version()
  local body = take_body(handle, known)
  registry.catch_up()
  if registry.version() ~= version then -- a slow client's key may be revoked by now
    identity, tenant = authenticate(handle, known, tenant.name)
    exchange.identity = identity
  end
  local asked, refusal = bodies.read(body:getBytes(0, body:length()), endpoint ~= EMBEDDINGS)
  if not asked then return refusals.answer(handle, known, refusal) end
  known.requested, exchange.asked_bytes, exchange.adds_usage = asked.model, #asked.body, asked.adds_usage
  asked.subject = subject_of(known.sent, asked.user)
  local backend
  backend, refusal = find_backend(exchange, tenant, asked, known.sent.values["x-llm-affinity"] or asked.user)
  if not backend then return refusals.answer(handle, known, refusal) end
  admit(handle, known, exchange, tenant, asked)
  return send_on(handle, exchange, asked, body)
end

local function address_of(handle)
  local address = handle:streamInfo():downstreamRemoteAddress()
  return address and (address:match("^(.*):%d+$") or address)
end

-- Decides on a request: the deployment that it goes to. Where it is refused or answered here, this does not return: Envoy
-- lets go of the coroutine.
function requests.decide(handle, id)
  local sent = incoming.read(handle)
  handle:headers():replace("x-request-id", id)
  local method, host, target = sent.values[":method"], sent.values[":authority"] or "", sent.values[":path"]
  if target == "/healthz" and method == "GET" then return listing.health(handle, id) end
  registry.catch_up()
  local name, endpoint, path = doors.find(method, host, target)
  local known = { id = id, at = posix.now(), path = path, host = host, remote = address_of(handle), sent = sent }
  if not name then return refusals.answer(handle, known, refusals.unknown_url(method, path)) end
  local identity, tenant = authenticate(handle, known, name)
  if endpoint == MODELS then return listing.models(handle, id, identity, tenant) end
  return ask(handle, known, identity, tenant, endpoint)
end

return requests
