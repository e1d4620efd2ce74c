"""How much a work order may use where nothing else is set, and which settings raise it.

By default nearly all of a machine that does nothing else: what goes beyond is a fault and no training.
"""

import os

MEMORY_SETTING = "LLM_ASSETS_ORDER_MEMORY_GIB"
PROCESSES_SETTING = "LLM_ASSETS_ORDER_PROCESSES"
HOURS_SETTING = "LLM_ASSETS_ORDER_HOURS"
MEMORY_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 9 // 10
PROCESSES = 64 + 32 * (os.cpu_count() or 1)
SECONDS = 14 * 24 * 3600
