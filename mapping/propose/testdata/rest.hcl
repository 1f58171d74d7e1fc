# Proposed from 12 operations in traffic.jsonl. It maps 10 of them.
#
# Names, types and what belongs together are guesses from what passed. Read it, rename what you like (a register's name is
# for you alone), then: spookgw validate, and spookgw replay with the recording.

register "order/{order}" {
  fields = { customer = string, id = number, items = any, status = string }

  # written 3 times, read 2 times, as in /api/v2/orders/1001  {"id":1001,"customer":"ann","items":[],"status":"paid"}
  bind "http" "/api/v2/orders/{order}" {}

  # written 2 times, as in /api/v2/orders  {"id":1001,"customer":"ann","items":[{"sku":"a","n":1}],"status":"open"}
  bind "http" "/api/v2/orders" {
    direction = "in"
    methods   = ["POST"]
    key       = { order = payload.id }
  }
}

register "user/{user}" {
  fields = { admin = bool, mail = string, name = string }

  # written 2 times, read once, as in /api/v2/users/3f2a91c4-0000-4000-8000-0123456789ab  {"name":"Ann","mail":"a@x.org","admin":true}
  bind "http" "/api/v2/users/{user}" {}
}

# Nothing is proposed for:
#   http /api/v2/orders/ (once): an empty segment
#   http /health (once): it was only read, which says nothing of what is there
