# Registers that several writers share: what becomes of writes that don't know of each other is the rule's to say.
#
#   curl -X PUT http://gateway/v1/peak/m1 -d '{"value":7}'
#   mosquitto_pub -t peak/m1 -m '{"value":5}'
#   curl http://gateway/v1/peak/m1                              {"value":7}
#
# Without a rule a field is `latest`: who has seen a value replaces it, and of two who have not seen each other's the later wins.

# The highest reading.
register "peak/{meter}" {
  fields = { value = max(number) }

  bind "http" "/v1/peak/{meter}" {}
  bind "mqtt" "peak/{meter}" {}
}

# A total. Who writes it has seen it, so that 12 after 10 is two more; what others added meanwhile stays.
#
#   curl -X PUT http://gateway/v1/stock/bolts -d '{"value":10}'
#   curl -X POST http://gateway/v1/stock/bolts/add -d '{"add":5}'
#   mosquitto_pub -t stock/bolts/add -m '{"add":-2}'
#   curl http://gateway/v1/stock/bolts                          {"value":13}
#
# A scale only reports: 3 and then 4 are four more, whatever the total is.
#   mosquitto_pub -t scale/bolts -m 3
register "stock/{part}" {
  fields = { value = sum(number) }

  bind "http" "/v1/stock/{part}" {}
  bind "mqtt" "stock/{part}" {}

  bind "http" "/v1/stock/{part}/add" {
    methods = ["POST"]
    in      = { value = by(payload.add) }
  }
  bind "mqtt" "stock/{part}/add" {
    in = { value = by(payload.add) }
  }
  bind "mqtt" "scale/{part}" {
    direction = "in"
    codec     = number
    delete    = "ignore"
    map       = { value = payload }
  }
}

# A set: what one adds and another adds are both in it. A list is the whole set, by() adds to it.
#
#   curl -X PUT http://gateway/v1/tags/d1 -d '{"value":["red","big"]}'
#   mosquitto_pub -t tags/d1/add -m round
#   curl http://gateway/v1/tags/d1                              {"value":["big","red","round"]}
register "tags/{doc}" {
  fields = { value = union(string) }

  bind "http" "/v1/tags/{doc}" {}
  bind "mqtt" "tags/{doc}" {}
  bind "mqtt" "tags/{doc}/add" {
    codec = text
    in    = { value = by(payload) }
  }
}

# Where a person has to choose: titles of writers who did not know of each other stand side by side until somebody writes
# who has seen them. Writes wait until they are collapsed, so that two of them don't see each other.
#
#   curl -X PUT http://gateway/v1/title/d1 -d '{"value":"Ovens"}'
#   mosquitto_pub -t title/d1 -m '{"value":"Kilns"}'
#   spookgw collapse title/d1
#   curl http://gateway/v1/title/d1                             {"value":["Kilns","Ovens"]}
register "title/{doc}" {
  fields = { value = ask(string) }
  commit = "manual"

  bind "http" "/v1/title/{doc}" {}
  bind "mqtt" "title/{doc}" {}
}

# Who says it counts: what came by MQTT never replaces what came by HTTP.
#
#   curl -X PUT http://gateway/v1/owner/pump -d '{"value":"ann"}'
#   mosquitto_pub -t owner/pump -m '{"value":"joe"}'
#   curl http://gateway/v1/owner/pump                           {"value":"ann"}
register "owner/{asset}" {
  fields = { value = priority(string, "http/*", "mqtt/*") }

  bind "http" "/v1/owner/{asset}" {}
  bind "mqtt" "owner/{asset}" {}
}

# What has to be looked at first: writes are kept, and shown when somebody collapses them.
#
#   curl -X PUT http://gateway/v1/review/d1 -d '{"value":"a draft"}'      202
#   spookgw pending
#   spookgw collapse review/d1
register "review/{doc}" {
  commit = "manual"

  bind "http" "/v1/review/{doc}" {}
  bind "mqtt" "review/{doc}" {}
}

# The first one has it.
#
#   curl -X PUT http://gateway/v1/claim/4a -d '{"value":"ann"}'
#   mosquitto_pub -t claim/4a -m '{"value":"joe"}'
#   curl http://gateway/v1/claim/4a                             {"value":"ann"}
register "claim/{seat}" {
  fields = { value = first(string) }

  bind "http" "/v1/claim/{seat}" {}
  bind "mqtt" "claim/{seat}" {}
}

test "the highest reading stays" {
  send = [
    { http = "/v1/peak/m1", payload = { value = 7 } },
    { mqtt = "peak/m1", payload = { value = 5 } },
  ]
  want = { "peak/m1" = { value = 7 } }
}

test "a total, increments, and a scale that only reports" {
  given = { "stock/bolts" = { value = 10 } }
  send = [
    { http = "/v1/stock/bolts/add", verb = "message", payload = { add = 5 } },
    { mqtt = "stock/bolts/add", payload = { add = -2 } },
    { mqtt = "scale/bolts", payload = 3 },
    { mqtt = "scale/bolts", payload = 4 },
  ]
  want = { "stock/bolts" = { value = 17 } }
}

test "tags are added" {
  given = { "tags/d1" = { value = ["red", "big"] } }
  send  = { mqtt = "tags/d1/add", payload = "round" }
  want  = { "tags/d1" = { value = ["big", "red", "round"] } }
}

test "titles of two who did not see each other" {
  send = [
    { http = "/v1/title/d1", payload = { value = "Ovens" } },
    { mqtt = "title/d1", payload = { value = "Kilns" } },
    { collapse = "title/d1" },
  ]
  want = { "title/d1" = { value = ["Kilns", "Ovens"] } }
}

test "MQTT does not replace what HTTP said" {
  send = [
    { http = "/v1/owner/pump", payload = { value = "ann" } },
    { mqtt = "owner/pump", payload = { value = "joe" } },
  ]
  want = { "owner/pump" = { value = "ann" } }
}

test "the first one has the seat" {
  send = [
    { http = "/v1/claim/4a", payload = { value = "ann" } },
    { mqtt = "claim/4a", payload = { value = "joe" } },
  ]
  want = { "claim/4a" = { value = "ann" } }
}

test "a review waits until somebody collapses it" {
  send = { http = "/v1/review/d1", payload = { value = "a draft" } }
  want = { "review/d1" = null }
  told = {}
}
