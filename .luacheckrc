-- The gateway's filter runs in Envoy's LuaJIT.
std = "luajit"
max_line_length = 150
