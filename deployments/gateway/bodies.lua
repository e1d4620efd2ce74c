-- A request's body: what the gateway must know of it, and the few bytes that it changes. Members that decide something here
-- may stand there once only, and of one type only, so that vLLM cannot take them for something else.
local endpoints = require("endpoints")
local json = require("json")
local json_scan = require("json_scan")
local sha256 = require("sha256")

local SAMPLING = {
  "temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens", "max_output_tokens", "seed", "n", "best_of",
  "presence_penalty", "frequency_penalty", "repetition_penalty", "stop", "logprobs", "top_logprobs", "dimensions", "min_tokens",
}
local SAMPLING_BYTES = 256 -- of one parameter; a longer one can be found by the hash of the body
local CONTAINS = { [("["):byte()] = true, [("{"):byte()] = true }
local USER_BYTES, ESCAPE_BYTES = 1024, 6 -- what a byte takes at most, written as an escape
local WITH_USAGE = '{"include_usage":true}'
local WANTED = { model = true, stream = true, stream_options = true, user = true, prompt = true, input = true }
-- What says how much an answer may cost.
local ANSWERS, LENGTHS = { "n", "best_of" }, { "max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens" }
local MOST_TOKENS = 2^40 -- what is asked for beyond is all the same
-- What would need answers that are kept.
local NEEDS_KEPT = { "background", "previous_response_id", "conversation" }
for _, name in ipairs(NEEDS_KEPT) do WANTED[name] = true end
-- What vLLM compiles to a grammar before it answers; `tools` where one of them has to be called.
local GRAMMARS, TOOLS = { "response_format", "structured_outputs", "text" }, "tools"
local GRAMMAR_BYTES = 32 * 1024 -- compiling takes time by the cube of the length: 2.3 s at most were seen here, 14 s at twice as much
local UNFORCED = { ['"auto"'] = true, ['"none"'] = true, ["null"] = true }
WANTED[TOOLS], WANTED.tool_choice = true, true
for _, name in ipairs(GRAMMARS) do WANTED[name] = true end
local ABSENT = { ["null"] = true, ["false"] = true }
for _, name in ipairs(SAMPLING) do WANTED[name] = true end
local OPTIONS = { include_usage = true }
local FLAGS = { ["true"] = true, ["false"] = false, ["null"] = false }

local bodies = {}
local most_bytes

-- `bytes`: of one body at most.
function bodies.configure(bytes) most_bytes = bytes end

-- How long the body is going to be, as the headers say: as long as any may be where they do not. Whether that is not too long.
function bodies.announced(sent)
  local bytes = tonumber(sent.values["content-length"]) or most_bytes
  return bytes, bytes <= most_bytes
end

local function refuse(message, param) return nil, { status = 400, message = message, param = param, reason = "bad_request" } end

-- The text of a member that must be one, or why it is none.
local function string_member(text, first, last, param)
  if text:sub(first, first) ~= '"' then return refuse("'" .. param .. "' must be a string.", param) end
  local value = json.text(text:sub(first + 1, last - 1))
  if not value then return refuse("'" .. param .. "' is not valid Unicode.", param) end
  return value
end

-- The parameters of sampling, as a JSON object.
local function sampling_json(text, firsts, lasts)
  local json_text = ""
  for at = 1, #SAMPLING do
    local name = SAMPLING[at]
    local first = firsts[name]
    if first and lasts[name] - first < SAMPLING_BYTES and not CONTAINS[text:byte(first)] then
      json_text = json_text .. (json_text == "" and '{"' or ',"') .. name .. '":' .. text:sub(first, lasts[name])
    end
  end
  return json_text == "" and "{}" or json_text .. "}"
end

-- Whether the client asks for a stream's usage itself.
local function asks_usage(text, first, last)
  if not first or text:sub(first, last) == "null" then return false end
  local firsts, lasts = json_scan.members(text, first, last, OPTIONS, json.name)
  if not firsts then return refuse("'stream_options' must be an object.", "stream_options") end
  if not firsts.include_usage then return false end
  local flag = FLAGS[text:sub(firsts.include_usage, lasts.include_usage)]
  if flag == nil then return refuse("'stream_options.include_usage' must be true or false.", "stream_options") end
  return flag
end

local function user_of(text, first, last)
  if not first or text:sub(first, first) ~= '"' then return false end -- vLLM says what is wrong with it
  local user, refusal
  if last - first <= USER_BYTES * ESCAPE_BYTES + 1 then user, refusal = string_member(text, first, last, "user") end
  if refusal == nil and (not user or #user > USER_BYTES) then return refuse("'user' is longer than " .. USER_BYTES .. " bytes.", "user") end
  return user, refusal
end

-- The largest of some members that are numbers, at least 1; nil and a refusal where one is no whole number: vLLM takes text
-- and true for numbers.
local function largest(text, firsts, lasts, names)
  local most = 1
  for at = 1, #names do
    local first = firsts[names[at]]
    local word = first and text:sub(first, math.min(lasts[names[at]], first + SAMPLING_BYTES))
    if word and word ~= "null" then
      local number = tonumber(word)
      if not number or number % 1 ~= 0 then return refuse("'" .. names[at] .. "' must be a whole number.", names[at]) end
      most = math.max(most, number)
    end
  end
  return math.min(most, MOST_TOKENS)
end

local LISTS = { [("["):byte()] = true, [('"'):byte()] = true, [("{"):byte()] = true }

-- How many prompts there are: a list of texts or of lists of tokens is as many as are in it.
local function prompts_in(text, first, last)
  if not first or text:sub(first, first) ~= "[" then return 1 end
  local inside = text:find("[^%s]", first + 1)
  return LISTS[text:byte(inside)] and json_scan.count(text, first, last) or 1
end

local PROMPTS = { [endpoints.COMPLETIONS] = "prompt", [endpoints.EMBEDDINGS] = "input" }

-- The most tokens that the answers may have, for all that is said: at least one for each. nil and a refusal.
local function tokens_of(text, firsts, lasts, endpoint)
  local count, refusal = largest(text, firsts, lasts, ANSWERS)
  if not count then return nil, refusal end
  local length
  length, refusal = largest(text, firsts, lasts, LENGTHS)
  if not length then return nil, refusal end
  local name = PROMPTS[endpoint]
  local prompts = name and prompts_in(text, firsts[name], lasts[name]) or 1
  return math.min(count * length * prompts, MOST_TOKENS)
end

-- Why the Responses API cannot do what is asked; nil: it can.
local function asks_for_kept(text, firsts, lasts)
  for _, name in ipairs(NEEDS_KEPT) do
    local first = firsts[name]
    if first and not ABSENT[text:sub(first, lasts[name])] then
      return select(2, refuse("'" .. name .. "' is not served: answers are not kept here. Send the whole conversation as 'input'.", name))
    end
  end
  return nil
end

local function follows_too_much(firsts, lasts, name)
  return firsts[name] and lasts[name] - firsts[name] >= GRAMMAR_BYTES
end

-- Which member that the answer has to follow is too long; nil: none. Without a closure, which would end LuaJIT's traces.
local function too_long_to_follow(text, firsts, lasts)
  for at = 1, #GRAMMARS do
    if follows_too_much(firsts, lasts, GRAMMARS[at]) then return GRAMMARS[at] end
  end
  local choice = firsts.tool_choice
  if not choice or UNFORCED[text:sub(choice, lasts.tool_choice)] then return nil end
  return follows_too_much(firsts, lasts, TOOLS) and TOOLS or nil
end

local function refuse_to_follow(name)
  return refuse("'" .. name .. "' may have " .. GRAMMAR_BYTES .. " bytes at most: the model is held to it, which takes preparing.", name)
end

-- What is asked: body, model as requested, stream, adds_usage (the gateway asks for it), user, tokens, sampling (as JSON), sha256;
-- or nil and a refusal.
function bodies.read(text, endpoint)
  local streams, responds = endpoint ~= endpoints.EMBEDDINGS, endpoint == endpoints.RESPONSES
  local firsts, lasts = json_scan.members(text, 1, #text, WANTED, json.name)
  if not firsts then return refuse("The body is " .. lasts .. ".") end
  if not firsts.model then return refuse("'model' is missing.", "model") end
  local model, refusal = string_member(text, firsts.model, lasts.model, "model")
  if not model then return nil, refusal end
  local user
  user, refusal = user_of(text, firsts.user, lasts.user)
  if user == nil then return nil, refusal end
  local stream = false
  if firsts.stream then stream = FLAGS[text:sub(firsts.stream, lasts.stream)] end
  if stream == nil then return refuse("'stream' must be true or false.", "stream") end
  if responds then refusal = asks_for_kept(text, firsts, lasts) end
  if refusal then return nil, refusal end
  local long = too_long_to_follow(text, firsts, lasts)
  if long then return refuse_to_follow(long) end
  local usage = true -- the Responses API gives it unasked
  if stream and streams and not responds then usage, refusal = asks_usage(text, firsts.stream_options, lasts.stream_options) end
  if usage == nil then return nil, refusal end
  local tokens
  tokens, refusal = tokens_of(text, firsts, lasts, endpoint)
  if not tokens then return nil, refusal end
  return {
    tokens = tokens, body = text, model = model, stream = stream and streams, adds_usage = not usage, user = user or nil,
    sampling = sampling_json(text, firsts, lasts), sha256 = sha256.hex(text), firsts = firsts, lasts = lasts,
  }
end

-- The same text where it says so already, which most do: a copy of a body is garbage as long as the body.
local function replaced(text, first, last, value)
  if text:sub(first, last) == value then return text end
  return text:sub(1, first - 1) .. value .. text:sub(last + 1)
end

-- The body as vLLM gets it: the model's name there, and usage asked for at the end of a stream.
function bodies.for_model(asked, model_json)
  local text, firsts, lasts = asked.body, asked.firsts, asked.lasts
  local options, model = firsts.stream_options, model_json
  if asked.adds_usage and not options then model = model_json .. ',"stream_options":' .. WITH_USAGE end
  local before = options and options < firsts.model
  if asked.adds_usage and options and not before then text = replaced(text, options, lasts.stream_options, WITH_USAGE) end
  text = replaced(text, firsts.model, lasts.model, model)
  if asked.adds_usage and before then text = replaced(text, options, lasts.stream_options, WITH_USAGE) end
  return text
end

return bodies
