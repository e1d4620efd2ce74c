-- What the gateway reads out of an answer of vLLM, whole or one event of a stream: the digest that served it, usage, why
-- it finished and, for high risk alone, its text.
local json = require("json")
local json_scan = require("json_scan")
local new_table = require("table.new")

local MEMBERS = { system_fingerprint = true, usage = true, choices = true, error = true }
local USAGE = { prompt_tokens = true, completion_tokens = true }
local CHOICE = { finish_reason = true }
local FIELDS = 16 -- room for all that an outcome learns

local MOST_COUNTED = 2 ^ 53 -- beyond, no number of tokens

local answer_parts = {}

-- A value where it is an object or a list; an empty one in the place of any other.
function answer_parts.object(value) return type(value) == "table" and value or {} end

-- How many tokens a text says; nil: it says no such number.
function answer_parts.count(text)
  local said = tonumber(text)
  return said and said >= 0 and said < MOST_COUNTED and said or nil
end

-- What an outcome is before anything is known.
function answer_parts.outcome(exchange)
  local outcome = new_table(0, FIELDS)
  outcome.status, outcome.bytes, outcome.texts, outcome.coming = 200, 0, exchange.keeps_text and {} or nil, {}
  return outcome
end

local function read_usage(text, first, last, outcome)
  local firsts, lasts = json_scan.members(text, first, last, USAGE, json.name)
  if not firsts then return end
  for name, at in pairs(firsts) do outcome[name] = answer_parts.count(text:sub(at, lasts[name])) or outcome[name] end
end

-- Keeps a piece of a text for the record, where the outcome keeps texts, until what it stands in has gone out.
function answer_parts.say(outcome, index, piece)
  if type(piece) == "string" then table.insert(outcome.coming, { index = index, piece = piece }) end
end

-- What was read last has gone out.
function answer_parts.went(outcome)
  if not outcome.texts then return end
  if outcome.coming.instead then outcome.texts = {} end -- of all that came in pieces
  for _, each in ipairs(outcome.coming) do
    outcome.texts[each.index] = outcome.texts[each.index] or {}
    table.insert(outcome.texts[each.index], each.piece)
  end
  outcome.coming = {}
end

-- What a choice says: chat or completion, whole or a piece of it, tools that it calls.
local function collect(choice, outcome)
  local object, say = answer_parts.object, answer_parts.say
  choice = object(choice)
  local index = (type(choice.index) == "number" and choice.index or 0) + 1
  local message = object(choice.message or choice.delta)
  say(outcome, index, message.reasoning_content or message.reasoning)
  say(outcome, index, message.content)
  say(outcome, index, message.refusal)
  say(outcome, index, choice.text)
  for _, call in ipairs(object(message.tool_calls)) do
    local called = object(object(call)["function"])
    say(outcome, index, type(called.name) == "string" and called.name .. " ")
    say(outcome, index, called.arguments)
  end
end

local function read_choices(text, first, last, outcome)
  local spans = json_scan.elements(text, first, last)
  for at = 1, #spans, 2 do
    local firsts, lasts = json_scan.members(text, spans[at], spans[at + 1], CHOICE, json.name)
    if firsts and firsts.finish_reason and text:sub(firsts.finish_reason, firsts.finish_reason) == '"' then
      outcome.finish_reason = json.text(text:sub(firsts.finish_reason + 1, lasts.finish_reason - 1))
    end
    if outcome.texts then collect(json.value(text, spans[at], spans[at + 1]), outcome) end
  end
  return #spans > 0
end

local function first_byte(text, first) return first and text:sub(first, first) end

-- Reads one JSON object of an answer into the outcome: whether it holds choices, usage, an error. nil: it is no object.
function answer_parts.read(text, outcome)
  outcome.coming = {}
  local firsts, lasts = json_scan.members(text, 1, #text, MEMBERS, json.name)
  if not firsts then return nil end
  local held = { choices = false, usage = false, error = false }
  if first_byte(text, firsts.usage) == "{" then
    held.usage = true
    read_usage(text, firsts.usage, lasts.usage, outcome)
  end
  if first_byte(text, firsts.choices) == "[" then
    held.choices = read_choices(text, firsts.choices, lasts.choices, outcome)
  end
  if first_byte(text, firsts.system_fingerprint) == '"' then
    outcome.digest = json.text(text:sub(firsts.system_fingerprint + 1, lasts.system_fingerprint - 1)) or ""
  end
  held.error = first_byte(text, firsts.error) == "{"
  return held
end

-- The texts of all choices, in their order.
function answer_parts.text(outcome)
  if not outcome.texts then return nil end
  local indices, parts = {}, {}
  for index in pairs(outcome.texts) do indices[#indices + 1] = index end
  table.sort(indices)
  for _, index in ipairs(indices) do parts[#parts + 1] = table.concat(outcome.texts[index]) end
  return table.concat(parts, "\n")
end

-- Prompt and completion together; nil where vLLM did not count.
function answer_parts.tokens(outcome)
  if not outcome.prompt_tokens then return nil end
  return outcome.prompt_tokens + (outcome.completion_tokens or 0)
end

return answer_parts
