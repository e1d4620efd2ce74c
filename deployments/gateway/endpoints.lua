-- What can be asked at a tenant's door, and why not what else clients know: every route of vLLM's servers and of OpenAI's API
-- is either here among the served ones or is refused by a sentence.
local endpoints = {}

endpoints.CHAT, endpoints.COMPLETIONS = "/v1/chat/completions", "/v1/completions"
endpoints.EMBEDDINGS, endpoints.RESPONSES = "/v1/embeddings", "/v1/responses"
endpoints.MODELS, endpoints.MODEL = "/v1/models", "/v1/models/"

local ASKED, LISTED = { POST = true }, { GET = true, HEAD = true }
local SERVED = {
  [endpoints.CHAT] = ASKED, [endpoints.COMPLETIONS] = ASKED, [endpoints.EMBEDDINGS] = ASKED,
  [endpoints.RESPONSES] = ASKED, [endpoints.MODELS] = LISTED,
}
local ALLOW = { [ASKED] = "POST", [LISTED] = "GET, HEAD" }

local ONE_BY_ONE = "A conversation is asked by itself and as it is: POST /v1/chat/completions, or /v1/completions for a text."
local NOT_KEPT = "Answers are not kept, so there is none to fetch, cancel or go on from. Send the whole conversation as 'input'."
local OTHER_API = "The gateway speaks OpenAI's API alone. Ask POST /v1/chat/completions or /v1/responses."
local TEXT = "The models here take text and answer with text: no sound, no images, no video."
local GENERATE = "The models here generate text; they score, rank, classify and pool nothing. Ask POST /v1/chat/completions."
local COUNTED = "Tokens are not given out by themselves; 'usage' of every answer counts them."
local CATALOG = "The gateway keeps no files, jobs or conversations and trains nothing; datasets and models are the tenant's catalog's."
local OPERATORS = "This is for the operators of the model's server alone and cannot be reached through the gateway."

-- In this order. A path ends where the pattern says, at `/`, or at its end.
local REFUSED = {
  { "/v1/chat/completions/", ONE_BY_ONE }, { "/v1/completions/", ONE_BY_ONE }, { "/inference/", ONE_BY_ONE },
  { "/v1/responses/", NOT_KEPT },
  { "/v1/messages", OTHER_API }, { "/cohere", OTHER_API }, { "/v2/chat", OTHER_API }, { "/api", OTHER_API },
  { "/v1/audio", TEXT }, { "/v1/realtime", TEXT }, { "/v1/images", TEXT }, { "/v1/videos", TEXT },
  { "/v1/score", GENERATE }, { "/score", GENERATE }, { "/v1/rerank", GENERATE }, { "/v2/rerank", GENERATE },
  { "/rerank", GENERATE }, { "/classify", GENERATE }, { "/pooling", GENERATE }, { "/v2/embed", GENERATE },
  { "/generative_scoring", GENERATE }, { "/v1/systemone", GENERATE }, { "/v1/moderations", GENERATE },
  { "/tokenize", COUNTED }, { "/detokenize", COUNTED }, { "/tokenizer_info", COUNTED },
  { "/v1/files", CATALOG }, { "/v1/uploads", CATALOG }, { "/v1/batches", CATALOG }, { "/v1/fine_tuning", CATALOG },
  { "/v1/vector_stores", CATALOG }, { "/v1/assistants", CATALOG }, { "/v1/threads", CATALOG },
  { "/v1/conversations", CATALOG }, { "/v1/containers", CATALOG }, { "/v1/evals", CATALOG },
  { "/v1/load_lora_adapter", OPERATORS }, { "/v1/unload_lora_adapter", OPERATORS },
}

-- Of vLLM's own, which have nothing in common but whom they are for.
for name in ([[
  abort_requests collective_rpc docs fault_tolerance finish_weight_update get_world_size health init_weight_transfer_engine
  invocations is_paused is_scaling_elastic_ep is_sleeping kv_event_sources load metrics openapi.json pause ping ready readyz redoc
  release_kv_cache_memory reset_encoder_cache reset_mm_cache reset_prefix_cache resume scale_elastic_ep server_info
  shutdown_weight_transfer_engine sleep start_draft_weight_update start_profile start_weight_update static stop_profile
  update_weight_version update_weights version wake_up weight_checker weight_info
]]):gmatch("%S+") do REFUSED[#REFUSED + 1] = { "/" .. name, OPERATORS } end

local function lies_below(path, start)
  if path:sub(1, #start) ~= start then return false end
  local after = path:sub(#start + 1, #start + 1)
  return after == "" or after == "/" or start:sub(-1) == "/"
end

-- The endpoint of a path: one of the names above, and the model that /v1/models/ is about. nil where it is none.
function endpoints.find(path)
  if SERVED[path] then return path end
  local model = path:match("^/v1/models/([^/]+)$")
  if model then return endpoints.MODEL, model end
  return nil
end

-- The methods that an endpoint takes, where this is none of them; nil where it is.
function endpoints.wrong_method(endpoint, method)
  local methods = SERVED[endpoint] or LISTED
  return not methods[method] and ALLOW[methods] or nil
end

-- Why a path that is no endpoint is not served; nil where nobody knows it.
function endpoints.reason(path)
  for _, each in ipairs(REFUSED) do
    if lies_below(path, each[1]) then return each[2] end
  end
  return nil
end

return endpoints
