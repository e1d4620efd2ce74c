-- Refusing a request: on the record first, then in OpenAI's shape. Where the record cannot be written, that is the answer.
local alarms = require("alarms")
local ends = require("ends")
local errors = require("errors")
local exchanges = require("exchanges")
local limits = require("limits")
local records = require("records")
local tallies = require("tallies")

local RETRY_S = "5" -- of what operators or a deployment must put right

local refusals = {}

refusals.AUDIT_UNAVAILABLE = {
  status = 503, reason = "audit_unavailable", code = "audit_unavailable", headers = { ["retry-after"] = RETRY_S },
  message = "The gateway cannot write its audit log, so it lets nothing through. The operators must make room on its disk.",
}
refusals.NO_BODY = { status = 400, reason = "bad_request", message = "The request has no body." }
refusals.ENCODED = {
  status = 415, reason = "bad_request", message = "The gateway takes no compressed bodies. Send it without Content-Encoding.",
}

refusals.TOO_LARGE = {
  status = 413, reason = "too_large", message = "The body of the request is larger than the gateway takes.",
}

local NO_KEY = "No API key was given. Send one in the header 'Authorization: Bearer …'; `llm-assets keys create` makes one."

function refusals.unauthorized(reason)
  local message = reason == "no_key" and NO_KEY or nil
  return { status = 401, reason = reason, message = message, headers = { ["www-authenticate"] = "Bearer" } }
end

function refusals.unknown_url(method, path)
  return {
    status = 404, reason = "unknown_url", code = "unknown_url",
    message = "Unknown request URL: " .. method .. " " .. path .. ". Addresses begin with <tenant>.llm.<domain>/v1/ or /t/<tenant>/v1/.",
  }
end

function refusals.not_served(method, path, why)
  return {
    status = 404, reason = "unknown_url", code = "endpoint_not_served",
    message = method .. " " .. path .. " is not served. " .. why,
  }
end

function refusals.wrong_method(method, path, allowed)
  return {
    status = 405, reason = "unknown_url", headers = { allow = allowed },
    message = method .. " is not allowed on " .. path .. "; " .. allowed .. " is.",
  }
end

function refusals.no_model(requested)
  return {
    status = 404, reason = "model", code = "model_not_found", param = "model",
    message = "The model '" .. requested:sub(1, 200) .. "' does not exist or is not this tenant's. GET /v1/models lists what this key may ask.",
  }
end

function refusals.forbidden(reason, model)
  local what = reason == "model" and "" or "models of its risk class, so not "
  return { status = 403, reason = reason, param = "model", message = "This key or token may not ask " .. what .. "'" .. model .. "'." }
end

function refusals.not_live(model)
  return {
    status = 503, reason = "model_not_live", code = "model_not_live", headers = { ["retry-after"] = RETRY_S },
    message = "No version of '" .. model .. "' is live now. Try again shortly.",
  }
end

local OF_TOKENS = { tokens_per_minute = true, tokens_of_a_request = true }
local LIMITED = {
  tokens_of_a_request = "The request may cost more tokens than this key or its tenant may use in a minute. Ask for fewer answers "
    .. "('n', prompts) or shorter ones ('max_tokens').",
  bytes_at_once = "The requests that this key or its tenant has sent and that are not answered yet are too large together. ",
}

-- `retry_s`: in how many seconds to try again. `headers`: more that the answer says.
function refusals.limited(reason, retry_s, headers)
  local wait = string.format("%.0f", math.max(1, math.ceil(retry_s)))
  headers["retry-after"] = wait
  if reason == limits.OVERLOADED then
    return {
      status = 503, reason = reason, code = "overloaded", headers = headers,
      message = "The gateway has no room for more requests now. Try again in " .. wait .. " s.",
    }
  end
  local what = LIMITED[reason] or "The limit " .. reason .. " of this key or of its tenant is reached. "
  return {
    status = 429, reason = reason, code = "rate_limit_exceeded", headers = headers,
    type = OF_TOKENS[reason] and "tokens" or "requests",
    message = reason == "tokens_of_a_request" and what or what .. "Try again in " .. wait .. " s.",
  }
end

local function too_many_strangers()
  local wait = string.format("%.0f", tallies.wait_s())
  return {
    status = 429, reason = "address", code = "rate_limit_exceeded", headers = { ["retry-after"] = wait },
    message = "Too many requests without a valid key came from this address. Requests with one are answered; others in " .. wait .. " s.",
  }
end

-- Puts a refused request on the record; nil and why it is not. `known`: id, at, tenant, model (the tenant's own, not what was
-- asked for), key, path, requested, remote, status, reason, as far as they are known; meter where it is authenticated.
local function record(known, has_own)
  if has_own then return records.denied(known) end
  tallies.count(known)
  return true
end

-- Puts on the record what Envoy refused before the filter decided.
function refusals.record(known) return record(known, (tallies.note(known))) end

-- What Envoy refused for want of memory, before anything was known of it.
ends.refused(function(known)
  known.reason = limits.OVERLOADED
  refusals.record(known)
end)

-- Ends the request.
function refusals.answer(handle, known, refusal)
  local own, waits = tallies.note(known)
  if waits then refusal = too_many_strangers() end
  known.status, known.reason = refusal.status, refusal.reason
  local recorded, why = record(known, own)
  if not recorded then
    alarms.raise(handle, "a refused request is not on the record", why)
    refusal = refusals.AUDIT_UNAVAILABLE
  end
  exchanges.answered(handle)
  errors.respond(handle, refusal, known.id)
end

return refusals
