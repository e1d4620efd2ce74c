-- A request's body: what the gateway must know of it, and the few bytes that it changes. Members that decide something here
-- may stand there once only, and of one type only, so that vLLM cannot take them for something else.
local endpoints = require("endpoints")
local json = require("json")
local json_scan = require("json_scan")
local sha256 = require("sha256")

local SAMPLING = {
  "temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens", "max_output_tokens", "seed", "n", "best_of",
  "presence_penalty", "frequency_penalty", "repetition_penalty", "stop", "logprobs", "top_logprobs", "dimensions",
}
local SAMPLING_BYTES = 256 -- of one parameter; a longer one can be found by the hash of the body
local CONTAINS = { [("["):byte()] = true, [("{"):byte()] = true }
local USER_BYTES = 1024
local WITH_USAGE = '{"include_usage":true}'
local WANTED = { model = true, stream = true, stream_options = true, user = true }
-- What would need answers that are kept.
local NEEDS_KEPT = { "background", "previous_response_id", "conversation" }
for _, name in ipairs(NEEDS_KEPT) do WANTED[name] = true end
local ABSENT = { ["null"] = true, ["false"] = true }
for _, name in ipairs(SAMPLING) do WANTED[name] = true end
local OPTIONS = { include_usage = true }
local FLAGS = { ["true"] = true, ["false"] = false, ["null"] = false }

local bodies = {}

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
  local user, refusal = string_member(text, first, last, "user")
  if user and #user > USER_BYTES then return refuse("'user' is longer than " .. USER_BYTES .. " bytes.", "user") end
  return user, refusal
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

-- What is asked: body, model as requested, stream, adds_usage (the gateway asks for it), user, sampling (as JSON), sha256;
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
  local usage = true -- the Responses API gives it unasked
  if stream and streams and not responds then usage, refusal = asks_usage(text, firsts.stream_options, lasts.stream_options) end
  if usage == nil then return nil, refusal end
  return {
    body = text, model = model, stream = stream and streams, adds_usage = not usage, user = user or nil,
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
