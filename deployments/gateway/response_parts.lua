-- What the gateway reads out of an answer of the Responses API (/v1/responses), whole or one event of a stream. As
-- answer_parts.lua; but vLLM names no digest in these. It is asked for the version by its name (`model@version`), which no
-- other server knows, and has to name it itself.
local answer_parts = require("answer_parts")
local json = require("json")
local json_scan = require("json_scan")

local RESPONSE = { model = true, status = true, usage = true, output = true, incomplete_details = true }
local USAGE = { input_tokens = true, output_tokens = true }
local DETAILS = { reason = true }
local EVENT = { type = true, response = true, delta = true, output_index = true, error = true }
local ENDS = { ["response.completed"] = true, ["response.incomplete"] = true, ["response.failed"] = true }

local count, object, say = answer_parts.count, answer_parts.object, answer_parts.say
local response_parts = {}

local function text_at(text, first, last)
  return first and text:sub(first, first) == '"' and json.text(text:sub(first + 1, last - 1)) or nil
end

local function object_at(text, first, last, wanted)
  if not first or text:sub(first, first) ~= "{" then return nil end
  return json_scan.members(text, first, last, wanted, json.name)
end

-- What an item of the output says: a message, reasoning, a tool that it calls.
local function collect(item, outcome, index)
  item = object(item)
  for _, part in ipairs(object(item.content)) do say(outcome, index, object(part).text or object(part).refusal) end
  for _, part in ipairs(object(item.summary)) do say(outcome, index, object(part).text) end
  if item.type == "function_call" then
    say(outcome, index, type(item.name) == "string" and item.name .. " ")
    say(outcome, index, item.arguments)
  end
end

-- The texts of the whole output, in the place of those that came in pieces.
local function read_output(text, first, last, outcome)
  local spans = json_scan.elements(text, first, last)
  if #spans == 0 then return end
  outcome.coming = { instead = true }
  for at = 1, #spans, 2 do collect(json.value(text, spans[at], spans[at + 1]), outcome, (at + 1) / 2) end
end

-- Reads text[first..last], a response object, into the outcome; whether it is an object.
local function read_response(text, first, last, outcome)
  local firsts, lasts = json_scan.members(text, first, last, RESPONSE, json.name)
  if not firsts then return false end
  outcome.named = text_at(text, firsts.model, lasts.model)
  outcome.finish_reason = text_at(text, firsts.status, lasts.status)
  local from, to = object_at(text, firsts.incomplete_details, lasts.incomplete_details, DETAILS)
  if from then outcome.finish_reason = text_at(text, from.reason, to.reason) or outcome.finish_reason end
  from, to = object_at(text, firsts.usage, lasts.usage, USAGE)
  if from and from.input_tokens then
    outcome.prompt_tokens = count(text:sub(from.input_tokens, to.input_tokens))
    outcome.completion_tokens = from.output_tokens and count(text:sub(from.output_tokens, to.output_tokens)) or nil
  end
  if outcome.texts and firsts.output and text:sub(firsts.output, firsts.output) == "[" then
    read_output(text, firsts.output, lasts.output, outcome)
  end
  return true
end

-- Reads a whole answer into the outcome; whether it is a JSON object.
function response_parts.read(text, outcome)
  outcome.coming = {}
  return read_response(text, 1, #text, outcome)
end

-- Reads one event of a stream into the outcome: whether it ends the answer, and is an error. nil: it is no object.
function response_parts.read_event(text, outcome)
  outcome.coming = {}
  local firsts, lasts = json_scan.members(text, 1, #text, EVENT, json.name)
  if not firsts then return nil end
  local kind = text_at(text, firsts.type, lasts.type)
  local held = { ends = ENDS[kind] == true, error = kind == "error" or kind == "response.failed" }
  held.error = held.error or (firsts.error ~= nil and text:sub(firsts.error, firsts.error) == "{")
  if firsts.response and text:sub(firsts.response, firsts.response) == "{" then
    read_response(text, firsts.response, lasts.response, outcome)
  elseif outcome.texts and firsts.delta then
    local index = firsts.output_index and tonumber(text:sub(firsts.output_index, lasts.output_index)) or 0
    say(outcome, index + 1, text_at(text, firsts.delta, lasts.delta))
  end
  return held
end

-- The name that an answer of this exchange has to give.
function response_parts.name(exchange) return exchange.model .. "@" .. exchange.backend.version end

return response_parts
