# Proposed from 11 operations in traffic.jsonl. It maps 11 of them.
#
# Names, types and what belongs together are guesses from what passed. Read it, rename what you like (a register's name is
# for you alone), then: spookgw validate, and spookgw replay with the recording.

register "sensor/{site}/{sensor}" {
  fields = { at = time, unit = string, value = number }

  # written 5 times, as in sensors/munich/fridge-1  {"value":4,"unit":"C"}
  bind "mqtt" "sensors/{site}/{sensor}" {
    direction = "in"
  }

  # written 3 times, read 3 times, as in /v1/berlin/oven-3  {"value":21.5,"unit":"C"}
  bind "http" "/v1/{site}/{sensor}" {
    map = { unit = payload.unit, value = payload.value }
  }
}
