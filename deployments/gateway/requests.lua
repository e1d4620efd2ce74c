-- What happens to a request, in this order: door, credentials, a place, body, access, route, limits, record. Only then is it told
-- to Envoy which deployment it goes to; without that Envoy has nowhere to send it.
local access = require("access")
local alarms = require("alarms")
local bodies = require("bodies")
local credentials = require("credentials")
local doors = require("doors")
local endpoints = require("endpoints")
local exchanges = require("exchanges")
local incoming = require("incoming")
local json = require("json")
local limits = require("limits")
local listing = require("listing")
local outgoing = require("outgoing")
local posix = require("posix")
local records = require("records")
local refusals = require("refusals")
local registry = require("registry")
local routing = require("routing")

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
    known.tenant, known.key, known.meter = name, identity.id, identity.meter
    return identity, tenant
  end
  known.tenant, known.key = door and name or nil, owner and owner.id
  return refusals.answer(handle, known, tenant)
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

-- A place among the requests at once and room for the body, before any of it is taken; a refusal where there is none.
local function enter(handle, known, exchange, tenant)
  local encoding = known.sent.values["content-encoding"]
  if encoding and encoding:lower() ~= "identity" then return refusals.answer(handle, known, refusals.ENCODED) end
  local bytes, fits = bodies.announced(known.sent)
  if not fits then return refusals.answer(handle, known, refusals.TOO_LARGE) end
  local ticket, reason, retry_s, full = limits.enter(exchange.identity, tenant, bytes)
  if not ticket then return refusals.answer(handle, known, refusals.limited(reason, retry_s, rate_headers(full))) end
  exchanges.entered(exchange, ticket)
end

-- The body's text, whole; a refusal where there is none.
local function take_body(handle, known, exchange)
  local body = handle:body()
  if not body or body:length() == 0 then return refusals.answer(handle, known, refusals.NO_BODY) end
  limits.holds(exchange.ticket, body:length())
  return body
end

local function subject_of(sent, user)
  local subject = sent.values["x-llm-subject"]
  return subject and subject ~= "" and subject:sub(1, SUBJECT_BYTES) or user
end

-- What this identity may ask by that name: model, its risk class and route, and the version that is named (nil: none is);
-- nil and a refusal.
local function find_model(known, identity, tenant, requested)
  local model, version = routing.split(requested)
  local risk_class, status, reason = access.check(identity, tenant, model)
  if not risk_class then
    return nil, status == 404 and refusals.no_model(requested) or refusals.forbidden(reason, model)
  end
  known.model = model
  return model, risk_class, registry.route(tenant.name, model), version
end

local function choose(model, requested, route, version, affinity)
  local backend, missing = routing.choose(route, version, affinity)
  if backend then return backend end
  return nil, missing == 503 and refusals.not_live(model) or refusals.no_model(requested)
end

-- Where the request goes; nil and a refusal.
local function find_backend(exchange, tenant, asked, affinity)
  local model, risk_class, route, version = find_model(exchange.known, exchange.identity, tenant, asked.model)
  if not model then return nil, risk_class end
  local backend, refusal = choose(model, asked.model, route, version, affinity)
  if not backend then return nil, refusal end
  exchange.model, exchange.route, exchange.backend = model, route, backend
  exchange.risk_class, exchange.keeps_text = risk_class, risk_class == "high"
  return backend
end

local function decoded(text)
  return (text:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

local PRODUCTION = "production" -- what a plain name stands for where one version has to be told

-- GET /v1/models/<name>: refused as a question to that model would be.
local function tell_model(handle, known, identity, tenant, name)
  local requested = decoded(name)
  known.requested = requested
  local model, refusal, route, version = find_model(known, identity, tenant, requested)
  local backend
  if model then backend, refusal = choose(model, requested, route, version or PRODUCTION) end
  if not backend then return refusals.answer(handle, known, refusal) end
  return listing.model(handle, known, identity, tenant, backend)
end

-- Counts the request and puts it on the record, or refuses it and does neither.
local function admit(handle, known, exchange, asked)
  local ticket = exchange.ticket
  local fits, reason, retry_s = limits.fits(ticket, asked.tokens)
  if not fits then return refusals.answer(handle, known, refusals.limited(reason, retry_s, rate_headers(ticket))) end
  local recorded, why = records.request(exchange, asked)
  if not recorded then
    alarms.raise(handle, "a request is not on the record", why)
    known.requested = nil
    return refusals.answer(handle, known, refusals.AUDIT_UNAVAILABLE)
  end
  limits.count(ticket, asked.tokens)
  exchanges.recorded(exchange)
  exchange.rate_headers = rate_headers(ticket)
end

-- Answers of these name no digest, so the version is asked for by its name, which no other server has.
local PINNED = { [endpoints.EMBEDDINGS] = true, [endpoints.RESPONSES] = true }

local function send_on(handle, exchange, asked, body)
  local name = exchange.route.model_json
  if PINNED[exchange.endpoint] then name = json.string(exchange.model .. "@" .. exchange.backend.version) end
  local text = bodies.for_model(asked, name)
  if text ~= asked.body then body:setBytes(text) end
  outgoing.dress(handle:headers(), exchange.known.sent, exchange.endpoint, exchange.route.authorization)
  local deployment = exchange.backend.deployment
  handle:streamInfo():dynamicMetadata():set("envoy.lb", "deployment", deployment)
  return deployment
end

local function ask(handle, known, identity, tenant, endpoint)
  local exchange = exchanges.start(handle, known)
  exchange.at, exchange.host, exchange.path = known.at, known.host, known.path
  exchange.tenant, exchange.identity, exchange.endpoint = tenant.name, identity, endpoint
  exchange.remote = known.remote
  local version = registry.version()
  enter(handle, known, exchange, tenant)
  local body = take_body(handle, known, exchange)
  registry.catch_up()
  if registry.version() ~= version then -- a slow client's key may be revoked by now
    identity, tenant = authenticate(handle, known, tenant.name)
    exchange.identity = identity
  end
  local asked, refusal = bodies.read(body:getBytes(0, body:length()), endpoint)
  if not asked then return refusals.answer(handle, known, refusal) end
  known.requested, exchange.asked_bytes, exchange.adds_usage = asked.model, #asked.body, asked.adds_usage
  asked.subject = subject_of(known.sent, asked.user)
  local backend
  backend, refusal = find_backend(exchange, tenant, asked, known.sent.values["x-llm-affinity"] or asked.user)
  if not backend then return refusals.answer(handle, known, refusal) end
  admit(handle, known, exchange, asked)
  return send_on(handle, exchange, asked, body)
end

-- The client's address, without its port.
function requests.address_of(handle)
  local address = handle:streamInfo():downstreamRemoteAddress()
  return address and (address:match("^(.*):%d+$") or address)
end

local READS = { GET = true, HEAD = true }

-- The tenant, the endpoint and the model in its path; a refusal where there is none.
local function find_endpoint(handle, known, method, host, target)
  local name, rest, path = doors.find(host, target)
  known.path = path
  if not name then return refusals.answer(handle, known, refusals.unknown_url(method, path)) end
  local endpoint, model = endpoints.find(rest)
  local allowed = endpoint and endpoints.wrong_method(endpoint, method)
  if allowed then return refusals.answer(handle, known, refusals.wrong_method(method, path, allowed)) end
  if endpoint then return name, endpoint, model end
  local why = endpoints.reason(rest)
  return refusals.answer(handle, known, why and refusals.not_served(method, path, why) or refusals.unknown_url(method, path))
end

-- Decides on a request: the deployment that it goes to. Where it is refused or answered here, this does not return: Envoy
-- lets go of the coroutine.
function requests.decide(handle, id)
  local sent = incoming.read(handle)
  handle:headers():replace("x-request-id", id)
  local method, host, target = sent.values[":method"], sent.values[":authority"] or "", sent.values[":path"] or "" -- CONNECT has none
  if target == "/healthz" and READS[method] then return listing.health(handle, id) end
  registry.catch_up()
  local known = { id = id, at = posix.now(), host = host, remote = requests.address_of(handle), sent = sent }
  local name, endpoint, model = find_endpoint(handle, known, method, host, target)
  local identity, tenant = authenticate(handle, known, name)
  if endpoint ~= endpoints.MODELS and endpoint ~= endpoints.MODEL then return ask(handle, known, identity, tenant, endpoint) end
  local fits, reason, retry_s = limits.ask_beside(identity, tenant)
  if not fits then return refusals.answer(handle, known, refusals.limited(reason, retry_s, {})) end
  if endpoint == endpoints.MODELS then return listing.models(handle, known, identity, tenant) end
  return tell_model(handle, known, identity, tenant, model)
end

return requests
