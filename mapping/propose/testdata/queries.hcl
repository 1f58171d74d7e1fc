# Proposed from 4 operations in traffic.jsonl. It maps 3 of them.
#
# Names, types and what belongs together are guesses from what passed. Read it, rename what you like (a register's name is
# for you alone), then: spookgw validate, and spookgw replay with the recording.

register "update/{id}" {
  fields = { t = number }

  # written 3 times, as in /update?ID=7&t=21.5
  bind "http" "/update?ID={id}&t={t}" {
    direction = "in"
    methods   = ["POST"]
  }
}

# Nothing is proposed for:
#   http /update (once): it was only read; what the query of a GET says is no write
