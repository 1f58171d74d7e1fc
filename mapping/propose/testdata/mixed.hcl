# Proposed from 11 operations in traffic.jsonl. It maps 5 of them.
#
# Names, types and what belongs together are guesses from what passed. Read it, rename what you like (a register's name is
# for you alone), then: spookgw validate, and spookgw replay with the recording.

register "dev/{dev}/x" {
  fields = { "$${x}" = string, "0" = number, "Strange Name" = bool, v = any }

  # written 3 times; 1 of these it does not map, as in dev/a1/x  {"v":1}
  bind "mqtt" "dev/{dev}/x" {
    wrapper   = ["floor"]
    direction = "in"
    map       = { v = payload.v }
  }

  # written 3 times, as in dev/a1/x  {"v":2}
  bind "mqtt" "dev/{dev}/x" {
    wrapper   = ["roof"]
    direction = "in"
  }
}

# Nothing is proposed for:
#   coap x (once): this program does not speak the protocol
#   mqtt $SYS/broker/uptime (once): a broker's word on itself
#   mqtt a//b (once): an empty segment
#   mqtt deep/a/b/c/d/e/f/g/h/i/j/k/l/m (once): more than 12 segments
#   mqtt dev/{dev}/x (once): another form than the rest of what was sent there
#   mqtt payload/{x} (once): braces in the address
