"""Which of some Envoy clusters a deployment is in, computed the same way in Python and in Lua.

Within a cluster a deployment is a subset, and a cluster with n subsets takes time and memory in proportion to
n² whenever one changes: 10,000 in one cluster stopped all requests for 1 to 2 s at every deploy. So they are
spread over `SHARDS` clusters by their id, and a change touches one.
"""

SHARDS = 32
HEADER = "x-llm-shard"
CLUSTERS = tuple(f"deployments-{number:02d}" for number in range(SHARDS))
_PRIME = 65_521

CHOOSE_IN_LUA = f"""
local function shard(id)
  local number = 0
  for at = 1, #id do number = (number * 31 + id:byte(at)) % {_PRIME} end
  return ("deployments-%02d"):format(number % {SHARDS})
end
local function choose_cluster(handle, deployment)
  if deployment then handle:headers():replace("{HEADER}", shard(deployment)) end
end
"""
"""Defines `choose_cluster(handle, deployment)`, which names the cluster of what the filter has chosen."""


def cluster_of(deployment: str) -> str:
    number = 0
    for byte in deployment.encode():
        number = (number * 31 + byte) % _PRIME
    return CLUSTERS[number % SHARDS]
