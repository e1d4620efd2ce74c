-- What the metrics read: dynamic metadata of the namespace `llm`. Names come from the journals alone, never from a client,
-- so there are as many as there are tenants, models and versions. Two tables, since each value set by itself costs as much.
local NAMESPACE, UNKNOWN = "llm", "-"

local labels = {}

-- Who asks what. nil is not known.
function labels.ask(handle, tenant, model, version)
  handle:streamInfo():dynamicMetadata():set(NAMESPACE, "asked", {
    tenant = tenant or UNKNOWN, model = model or UNKNOWN, version = version or UNKNOWN,
  })
end

-- How it ended: ok, error or denied; why where it was not ok; and what it took, as far as that is known. Tokens are counted
-- both or neither. `first_byte_ms`: of a stream; an answer that comes whole has its first byte when it is over.
function labels.outcome(handle, outcome, reason, prompt_tokens, completion_tokens, first_byte_ms)
  handle:streamInfo():dynamicMetadata():set(NAMESPACE, "ended", {
    outcome = outcome, reason = reason, first_byte_ms = first_byte_ms,
    prompt_tokens = prompt_tokens or (completion_tokens and 0), completion_tokens = completion_tokens or (prompt_tokens and 0),
  })
end

return labels
