-- Answers that come whole: checked, recorded, and only then given. Errors of vLLM and of Envoy pass in OpenAI's shape.
local alarms = require("alarms")
local answer_parts = require("answer_parts")
local errors = require("errors")
local exchanges = require("exchanges")
local json = require("json")
local json_scan = require("json_scan")
local receipts = require("receipts")
local records = require("records")
local refusals = require("refusals")
local sha256 = require("sha256")

local EMBEDDINGS = "/v1/embeddings" -- vLLM names no digest in these
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

local ABORTED = "abort" -- what vLLM says, with 200, of an answer that it was told to end

-- What is wrong with an answer that names the right digest; nil: nothing.
function answers.cut_short(outcome) return outcome.finish_reason == ABORTED and answers.CUT_SHORT or nil end

-- What is wrong with the digest that an answer names; nil: it is the promoted one.
function answers.wrong_digest(handle, exchange, outcome)
  if outcome.digest == exchange.backend.digest then return nil end
  if not outcome.digest and exchange.endpoint == EMBEDDINGS then return nil end
  alarms.raise(handle, "digest mismatch of deployment " .. exchange.backend.deployment,
    exchange.tenant .. "/" .. exchange.model .. " was promoted as " .. exchange.backend.digest .. " and answers as "
    .. json.string(outcome.digest or "nothing") .. " to request " .. exchange.id)
  return answers.MISMATCH
end

-- The message of an error of vLLM that is not in OpenAI's shape, where there is one.
local function message_of(text, firsts, lasts)
  local first = firsts and firsts.message
  return first and text:sub(first, first) == '"' and json.text(text:sub(first + 1, lasts.message - 1)) or nil
end

-- An error in OpenAI's shape: as it came, or made from what came.
local function shaped(text, status)
  local firsts, lasts = json_scan.members(text, 1, #text, ERROR_MEMBERS, json.name)
  if firsts and firsts.error and text:sub(firsts.error, firsts.error) == "{" then return text end
  return errors.body({ status = status, message = message_of(text, firsts, lasts) })
end

-- The body to give and, where vLLM's must not be given, the refusal that it is.
local function judge(handle, exchange, text, outcome)
  if outcome.status >= 400 then
    outcome.reason = outcome.served and "engine_error" or UNREACHED[outcome.status] or "bad_gateway"
    return shaped(text, outcome.status)
  end
  local refusal = answers.BROKEN -- so is a redirection: it would lead past the gateway
  if outcome.status == OK and answer_parts.read(text, outcome) then
    refusal = answers.wrong_digest(handle, exchange, outcome) or answers.cut_short(outcome)
  end
  if not refusal then return text end
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

function answers.give(handle, exchange, status)
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
