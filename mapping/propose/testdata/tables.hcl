# Proposed from 11 operations in traffic.jsonl. It maps 10 of them.
#
# Names, types and what belongs together are guesses from what passed. Read it, rename what you like (a register's name is
# for you alone), then: spookgw validate, and spookgw replay with the recording.

register "sensor/{name}/{site}" {
  fields = { since = time, unit = string, value = number }

  # written 4 times, as in public.sensors?name=oven-1&site=berlin
  bind "sql" "public.sensors" {
    key = { name = payload.name, site = payload.site }
  }
}

register "sensors/berlin/{oven}" {
  fields = { unit = string, value = number }

  # written 2 times, as in sensors/berlin/oven-1  {"value":20.5,"unit":"C"}
  bind "mqtt" "sensors/berlin/{oven}" {
    direction = "in"
  }
}

register "erp/Order+line/{order_id}/{pos}" {
  fields = { amount = number, article = string, tags = list(string) }

  # written 2 times, as in erp.Order+lines?order_id=7&pos=1
  bind "sql" "erp.Order+lines" {
    key = { order_id = payload.order_id, pos = payload.pos }
  }
}

register "customer/{id}" {
  fields = { done = bool, name = string }

  # written once, as in public.customers?id=1
  bind "sql" "public.customers" {
    key = { id = payload.id }
  }
}

register "supplier/{id}" {
  fields = { done = bool, name = string }

  # written once, as in public.suppliers?id=1
  bind "sql" "public.suppliers" {
    key = { id = payload.id }
  }
}

# Nothing is proposed for:
#   sql public.heap (once): nothing tells its rows apart: it has no primary key
