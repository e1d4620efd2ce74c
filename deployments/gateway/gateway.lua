-- The gateway's filter. Envoy runs `on_request` and `on_response` for every request; where one of them fails, nothing is
-- let through: Envoy by itself would go on as if there were no filter.
local alarms = require("alarms")
local answers = require("answers")
local bodies = require("bodies")
local doors = require("doors")
local errors = require("errors")
local event_streams = require("event_streams")
local exchanges = require("exchanges")
local ends = require("ends")
local limits = require("limits")
local posix = require("posix")
local records = require("records")
local refusals = require("refusals")
local registry = require("registry")
local request_ids = require("request_ids")
local requests = require("requests")
local spool = require("spool")
local tallies = require("tallies")

local LOGGED_BYTES = 500
local FAILED = { status = 500 }
local EVENTS = "text/event-stream"

local gateway = {}

-- `home`: the platform's state folder. `domain`: tenants are <tenant>.llm.<domain>. `body_bytes`: of one request and of one whole
-- answer at most.
-- `bodies_bytes`: of all that are not answered yet. `refusals`: see tallies.lua. Nothing is opened here.
function gateway.configure(settings)
  registry.configure(settings.home .. "/gateway")
  spool.configure(settings.home .. "/gateway/spool")
  doors.configure(settings.domain)
  answers.configure(settings.body_bytes)
  bodies.configure(settings.body_bytes)
  ends.configure(settings.home .. "/gateway/ends.jsonl")
  limits.configure(settings.bodies_bytes)
  tallies.configure(settings.refusals)
  return gateway
end

local function explain(failure) return tostring(failure):sub(1, LOGGED_BYTES) end

local FAULT = "internal_error"

-- The end of an exchange that failed here, for the record.
local function end_failed(exchange)
  if not exchange.over then
    records.response(exchange, { status = FAILED.status, sha256 = "", bytes = 0, reason = FAULT })
    exchanges.finish(exchange, 0)
  end
end

-- A request on which the filter failed, for the record.
local function end_undecided(id, exchange)
  if exchange and (exchange.recorded or exchange.over) then return end_failed(exchange) end
  local known = exchange and exchange.known or { id = id, at = posix.now() }
  known.status, known.reason = FAILED.status, FAULT
  records.denied(known)
end

local function send_nowhere(handle) handle:streamInfo():dynamicMetadata():set("envoy.lb", "deployment", "") end

-- Every step by itself: one that fails as well must not keep the next from being taken.
local function refuse_request(handle, id, failure)
  pcall(send_nowhere, handle)
  pcall(alarms.raise, handle, "a request is refused because the filter failed", id .. ": " .. failure)
  local known, exchange = pcall(exchanges.of, handle)
  pcall(end_undecided, id, known and exchange or nil)
  pcall(exchanges.answered, handle)
  errors.respond(handle, FAILED, id)
end

-- The deployment that the request goes to; nil where it goes nowhere.
function gateway.on_request(handle)
  local id = request_ids.new()
  local decided, outcome = xpcall(requests.decide, explain, handle, id)
  if decided then return outcome end
  refuse_request(handle, id, outcome)
end

local REASONS = { [401] = "invalid_token", [408] = "request_timeout", [413] = "too_large" }

-- An answer that Envoy gave before the filter had decided: on the record, in OpenAI's shape.
-- A token whose audience is of no tenant is 403 by Envoy; it is refused like every other here.
local function answer_of_envoy(handle, status, known)
  if status == 403 then
    status = 401
    handle:headers():replace(":status", tostring(status))
  end
  known.status, known.reason = status, REASONS[status] or "bad_request"
  local recorded, why = refusals.record(known)
  if not recorded then alarms.raise(handle, "a refused request is not on the record", why) end
  local body = handle:body(true)
  handle:headers():replace("x-request-id", known.id)
  handle:headers():replace("content-type", errors.JSON)
  body:setBytes(errors.body({ status = status }))
end

-- What Envoy's CORS filter says to a browser that asks whether a page may ask. It has no body and is about no request.
local function is_preflight(headers, status) return status == 200 and headers:get("access-control-allow-methods") ~= nil end

local function unknown(handle)
  return { id = request_ids.new(), at = posix.now(), remote = requests.address_of(handle) }
end

-- `chunks` is made here, so that what fails can still be kept from going out.
local function answer(handle, held)
  local exchange = exchanges.of(handle)
  local headers = handle:headers()
  local status = tonumber(headers:get(":status"))
  if not exchange then
    if is_preflight(headers, status) then return end
    return answer_of_envoy(handle, status, unknown(handle))
  end
  held.exchange = exchange
  if exchange.over then return end
  exchanges.answering(exchange)
  if not exchange.recorded then
    exchanges.over(exchange)
    return answer_of_envoy(handle, status, exchange.known)
  end
  local kind = headers:get("content-type") or ""
  if status == 200 and kind:sub(1, #EVENTS):lower() == EVENTS then
    held.chunks = handle:bodyChunks()
    return event_streams.give(handle, exchange, held)
  end
  exchange.first_byte_ms = (posix.now() - exchange.at) * 1000
  return answers.give(handle, exchange, status)
end

local function withhold(handle, held)
  if held.exchange then pcall(end_failed, held.exchange) end
  if held.chunks then
    if held.chunk then held.chunk:setBytes("") end
    for chunk in held.chunks do chunk:setBytes("") end
    return
  end
  local body = handle:body(true)
  if held.exchange then handle:headers():replace("x-request-id", held.exchange.id) end
  handle:headers():replace(":status", tostring(FAILED.status))
  handle:headers():replace("content-type", errors.JSON)
  body:setBytes(errors.body(FAILED))
end

function gateway.on_response(handle)
  local held = {}
  local given, failure = xpcall(answer, explain, handle, held)
  if not given then
    pcall(alarms.raise, handle, "an answer is withheld because the filter failed", failure)
    withhold(handle, held)
  end
end

return gateway
