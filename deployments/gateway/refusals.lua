-- Refusing a request: on the record first, then in OpenAI's shape. Where the record cannot be written, that is the answer.
local alarms = require("alarms")
local errors = require("errors")
local exchanges = require("exchanges")
local records = require("records")

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

function refusals.limited(reason, retry_s, headers)
  headers["retry-after"] = string.format("%.0f", math.max(1, math.ceil(retry_s)))
  return {
    status = 429, reason = reason, code = "rate_limit_exceeded", headers = headers,
    type = reason == "tokens_per_minute" and "tokens" or "requests",
    message = "The limit " .. reason .. " of this key or of its tenant is reached. Try again in " .. headers["retry-after"] .. " s.",
  }
end

-- Ends the request. `known`: id, at, tenant, model (the tenant's own, not what was asked for), key, path, requested,
-- remote, as far as they are known.
function refusals.answer(handle, known, refusal)
  known.status, known.reason = refusal.status, refusal.reason
  local recorded, why = records.denied(known)
  if not recorded then
    alarms.raise(handle, "a refused request is not on the record", why)
    refusal = refusals.AUDIT_UNAVAILABLE
  end
  exchanges.answered(handle)
  errors.respond(handle, refusal, known.id)
end

return refusals
