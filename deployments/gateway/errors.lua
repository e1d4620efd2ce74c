-- Answers that are refusals, in OpenAI's shape.
local json = require("json")

local TYPES = {
  [400] = "invalid_request_error", [401] = "invalid_request_error", [403] = "permission_error",
  [404] = "invalid_request_error", [413] = "invalid_request_error", [415] = "invalid_request_error",
  [429] = "rate_limit_error",
}
local CODES = { -- docs/reference/gateway.md names each of them
  [400] = "bad_request", [401] = "invalid_api_key", [403] = "permission_denied", [404] = "unknown_url",
  [405] = "method_not_allowed", [408] = "request_timeout", [413] = "request_too_large",
  [415] = "unsupported_media_type", [429] = "rate_limit_exceeded",
  [431] = "headers_too_large", [500] = "internal_error", [502] = "bad_gateway", [503] = "model_not_live",
  [504] = "timeout",
}
local MESSAGES = {
  [401] = "Incorrect API key or token provided, or not one of this tenant.",
  [408] = "The request did not arrive in time.",
  [413] = "The request is larger than the gateway takes.",
  [431] = "The request's headers are larger than the gateway takes.",
  [500] = "The gateway failed and let nothing through. Its log says why; ask the operators with the x-request-id.",
  [502] = "The model's server gave no answer that can be passed on.",
  [503] = "The model's server cannot be reached. Try again shortly.",
  [504] = "The model's server did not answer in time.",
}

local errors = { JSON = "application/json" }

-- The body of an error. `refusal`: status, and where it says more than the status does, code, message, param, type.
function errors.body(refusal)
  local status = refusal.status
  local code = refusal.code or CODES[status] or "error"
  return table.concat({
    '{"error":{"message":', json.string(refusal.message or MESSAGES[status] or "The request failed."),
    ',"type":"', refusal.type or TYPES[status] or (status < 500 and "invalid_request_error" or "server_error"),
    '","param":', json.string_or_null(refusal.param), ',"code":"', code, '"}}',
  })
end

-- Answers the request with it. Nothing after this runs.
function errors.respond(handle, refusal, id)
  local headers = { [":status"] = tostring(refusal.status), ["content-type"] = errors.JSON, ["x-request-id"] = id }
  for name, value in pairs(refusal.headers or {}) do headers[name] = value end
  handle:respond(headers, errors.body(refusal))
end

return errors
