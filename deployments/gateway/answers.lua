-- Answers that come whole: checked, recorded, and only then given. Errors of vLLM and of Envoy pass in OpenAI's shape.
local alarms = require("alarms")
local answer_parts = require("answer_parts")
local endpoints = require("endpoints")
local errors = require("errors")
local exchanges = require("exchanges")
local json = require("json")
local json_scan = require("json_scan")
local receipts = require("receipts")
local records = require("records")
local refusals = require("refusals")
local response_parts = require("response_parts")
local sha256 = require("sha256")

local OK = 200
local UNREACHED = { [503] = "unreachable", [504] = "timeout" }
local ERROR_MEMBERS = { error = true, message = true }
local RETRY_S = "5"

local answers = {}

answers.MISMATCH = {
  status = 502, reason = "digest_mismatch", code = "served_digest_mismatch",
  message = "The model's server runs another version than the one that was promoted. Its answer is withheld; the operators are told.",
}
answers.BROKEN = {
  status = 502, reason = "bad_answer", message = "The model's server gave an answer that is not in the OpenAI API's form.",
}

answers.CUT_SHORT = {
  status = 503, reason = "engine_stopped",
  message = "The model's server was told to end while it answered. Ask again.",
}

local TOO_LARGE = {
  status = 502, reason = "answer_too_large", code = "answer_too_large",
  message = "The model's answer is larger than the gateway passes on. Ask for a shorter one or fewer ('n'), or as a stream.",
}
local BYTES_OF_A_TOKEN = 4
local most_bytes

-- `bytes`: of a whole answer at most.
function answers.configure(bytes) most_bytes = bytes end

local ABORTED = "abort" -- what vLLM says, with 200, of an answer that it was told to end

-- What is wrong with an answer that names the right digest; nil: nothing.
function answers.cut_short(outcome) return outcome.finish_reason == ABORTED and answers.CUT_SHORT or nil end

-- Whether the answer names the version that was chosen, in the way that its endpoint does.
local function is_promoted(exchange, outcome)
  if exchange.endpoint == endpoints.RESPONSES then return outcome.named == response_parts.name(exchange) end
  if not outcome.digest and exchange.endpoint == endpoints.EMBEDDINGS then return true end
  return outcome.digest == exchange.backend.digest
end

-- What is wrong with the version that an answer names; nil: it is the promoted one.
function answers.wrong_version(handle, exchange, outcome)
  if is_promoted(exchange, outcome) then return nil end
  alarms.raise(handle, "digest mismatch of deployment " .. exchange.backend.deployment,
    exchange.tenant .. "/" .. exchange.model .. " was promoted as " .. exchange.backend.digest .. " and answers as "
    .. json.string(outcome.digest or outcome.named or "nothing") .. " to request " .. exchange.id)
  return answers.MISMATCH
end

-- The message of an error of vLLM that is not in OpenAI's shape, where there is one.
local function message_of(text, firsts, lasts)
  local first = firsts and firsts.message
  return first and text:sub(first, first) == '"' and json.text(text:sub(first + 1, lasts.message - 1)) or nil
end

-- What vLLM says where its server has no such route, or a route that its model cannot do.
local NO_SUCH_ROUTE = { [404] = true, [405] = true, [501] = true }

local function unable(exchange, status)
  local instead = exchange.endpoint == endpoints.EMBEDDINGS and "It generates text: ask POST /v1/chat/completions."
    or "GET /v1/models lists what this key may ask."
  return errors.body({
    status = status, code = "endpoint_not_served", param = "model",
    message = "'" .. exchange.model .. "' cannot do what " .. exchange.endpoint .. " asks for. " .. instead,
  })
end

-- An error in OpenAI's shape: as it came, or made from what came.
local function shaped(exchange, outcome, text)
  local firsts, lasts = json_scan.members(text, 1, #text, ERROR_MEMBERS, json.name)
  if firsts and firsts.error and text:sub(firsts.error, firsts.error) == "{" then return text end
  if outcome.served and NO_SUCH_ROUTE[outcome.status] then return unable(exchange, outcome.status) end
  return errors.body({ status = outcome.status, message = message_of(text, firsts, lasts) })
end

local function read(exchange, text, outcome)
  if exchange.endpoint == endpoints.RESPONSES then return response_parts.read(text, outcome) end
  return answer_parts.read(text, outcome)
end

-- The body to give and, where vLLM's must not be given, the refusal that it is.
local function judge(handle, exchange, text, outcome)
  if outcome.status >= 400 then
    outcome.reason = outcome.served and "engine_error" or UNREACHED[outcome.status] or "bad_gateway"
    return shaped(exchange, outcome, text)
  end
  local refusal = answers.BROKEN -- so is a redirection: it would lead past the gateway
  if outcome.status == OK and read(exchange, text, outcome) then
    refusal = answers.wrong_version(handle, exchange, outcome) or answers.cut_short(outcome)
  end
  if not refusal then
    answer_parts.went(outcome)
    return text
  end
  outcome.status, outcome.reason = refusal.status, refusal.reason
  return errors.body(refusal), refusal
end

-- Puts the answer on the record; the body to give instead where that fails.
local function record(handle, exchange, outcome, text)
  outcome.sha256, outcome.bytes, outcome.text = sha256.hex(text), #text, answer_parts.text(outcome)
  local recorded, why = records.response(exchange, outcome)
  if recorded then return text end
  alarms.raise(handle, "an answer is not on the record and not given", why)
  outcome.status, outcome.reason = 500, "audit_unavailable"
  return errors.body({ status = 500, code = "audit_unavailable", message = refusals.AUDIT_UNAVAILABLE.message })
end

-- What vLLM counted; nothing for an error, nil where it did not say.
local function tokens_of(outcome)
  if outcome.status ~= OK then return 0 end
  return answer_parts.tokens(outcome)
end

-- How long the answer says that it is, where it cannot be held: longer than may be, or without a length.
local function unholdable(headers)
  local said = headers:get("content-length")
  local length = said and tonumber(said)
  if length then return length > most_bytes and length or nil end
  return headers:get("transfer-encoding") and most_bytes or nil
end

-- In the place of an answer that cannot be held. What comes of it is dropped as it comes.
local function refuse_unheld(handle, exchange, length)
  local outcome, headers, text = answer_parts.outcome(exchange), handle:headers(), errors.body(TOO_LARGE)
  outcome.status, outcome.reason = TOO_LARGE.status, TOO_LARGE.reason
  text = record(handle, exchange, outcome, text)
  receipts.put(headers, exchange, true)
  headers:replace(":status", tostring(outcome.status))
  headers:replace("content-type", errors.JSON)
  headers:replace("content-length", tostring(#text))
  exchanges.finish(exchange, math.ceil((exchange.asked_bytes + length) / BYTES_OF_A_TOKEN))
  for chunk in handle:bodyChunks() do
    chunk:setBytes(text)
    text = ""
  end
end

function answers.give(handle, exchange, status)
  local length = unholdable(handle:headers())
  if length then return refuse_unheld(handle, exchange, length) end
  local outcome = answer_parts.outcome(exchange)
  outcome.status = status
  outcome.served = status == OK or handle:headers():get("date") ~= nil -- Envoy dates its own answers later than this
  local body = handle:body(true)
  local headers = handle:headers() -- not the same object as before the body came
  local came = body:getBytes(0, body:length())
  receipts.put(headers, exchange, outcome.served)
  local text = record(handle, exchange, outcome, (judge(handle, exchange, came, outcome)))
  if outcome.status ~= status then
    headers:replace(":status", tostring(outcome.status))
    headers:remove("location")
  end
  if outcome.reason == answers.MISMATCH.reason then headers:remove("x-llm-digest") end -- another one answered
  if outcome.status == 503 then headers:replace("retry-after", RETRY_S) end
  if text ~= came then
    headers:replace("content-type", errors.JSON)
    body:setBytes(text)
  end
  exchanges.finish(exchange, tokens_of(outcome))
end

return answers
