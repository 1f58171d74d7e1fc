# Ovens whose controller takes command lines, and answers in text.
#
#   curl -X PATCH http://gateway/ovens/kiln-3 -d '{"wanted":185}'
#   → setpoint kiln-3 185                      typed at the controller
#   mosquitto_pub -t ovens/kiln-3/is -m 'kiln-3: 179.5 C'
#   curl http://gateway/ovens/kiln-3                            {"actual":179.5,"wanted":185}
#
# What an oven is told and what it says are two fields. One field would be the oven's old temperature again before it has
# obeyed.

register "oven/{oven}" {
  fields = { wanted = number, actual = number, seen = time }

  # What the controller is told: a command line for each new value.
  bind "ssh" "exec: setpoint {oven} {wanted}" {
    direction = "out"
  }

  # What it answers when it is asked.
  bind "ssh" "exec: status {oven}" {
    direction = "in"
    codec     = text("{name}: {actual} C")
    poll      = "10s"
    map       = { actual = number(payload.actual) }
    in        = { seen = now }
  }

  # The same over MQTT, for controllers that push.
  bind "mqtt" "ovens/{oven}/setpoint" {
    direction = "out"
    codec     = number
    map       = { wanted = payload }
  }
  bind "mqtt" "ovens/{oven}/is" {
    direction = "in"
    codec     = text("{name}: {actual} C")
    map       = { actual = number(payload.actual) }
    in        = { seen = now }
  }

  bind "http" "/ovens/{oven}" {}
}

test "an application wants 185 degrees" {
  given = { "oven/kiln-3" = { actual = 20, wanted = 20 } }
  send  = { http = "/ovens/kiln-3", verb = "merge", payload = { wanted = 185 } }
  want  = { "oven/kiln-3" = { actual = 20, wanted = 185 } }
  told  = { mqtt = { "ovens/kiln-3/setpoint" = "185" } }
}

test "what the oven says never goes back to it" {
  now   = "2026-03-01T12:00:00Z"
  given = { "oven/kiln-3" = { wanted = 185 } }
  send  = { mqtt = "ovens/kiln-3/is", payload = "kiln-3: 179.5 C" }
  want  = { "oven/kiln-3" = { wanted = 185, actual = 179.5, seen = "2026-03-01T12:00:00Z" } }
  told  = { mqtt = [], http = "/ovens/kiln-3" }
}

test "an answer that is no temperature is refused" {
  given   = { "oven/kiln-3" = { wanted = 185, actual = 179.5 } }
  send    = { mqtt = "ovens/kiln-3/is", payload = "kiln-3: sensor broken" }
  want    = { "oven/kiln-3" = { wanted = 185, actual = 179.5 } }
  told    = {}
  refused = "{actual} C"
}
