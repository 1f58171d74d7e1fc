# Proposed from 16 operations in traffic.jsonl. It maps 16 of them.
#
# Names, types and what belongs together are guesses from what passed. Read it, rename what you like (a register's name is
# for you alone), then: spookgw validate, and spookgw replay with the recording.

register "oven/{oven}" {
  fields = { pressure = number, state = enum("idle", "running"), temp = number, wanted_setpoint = number }

  # written 2 times, as in plant/oven-1/pressure  3
  bind "mqtt" "plant/{oven}/pressure" {
    direction = "in"
    codec     = number
    map       = { pressure = payload }
  }

  # written once, as in plant/oven-1/setpoint/set  80
  bind "mqtt" "plant/{oven}/setpoint/set" {
    direction = "in"
    codec     = number
    map       = { wanted_setpoint = payload }
  }

  # written 6 times, as in plant/oven-1/state  running
  bind "mqtt" "plant/{oven}/state" {
    direction = "in"
    codec     = text
    map       = { state = payload }
  }

  # written 2 times, as in plant/oven-1/temp  21.5
  bind "mqtt" "plant/{oven}/temp" {
    direction = "in"
    codec     = number
    map       = { temp = payload }
  }
}

register "rtl_433/event/{model}/{id}" {
  fields = { id = number, model = string, temperature_C = number }

  # written 3 times, as in rtl_433/events  {"model":"Acurite","id":77,"temperature_C":4.5}
  bind "mqtt" "rtl_433/events" {
    direction = "in"
    key       = { model = payload.model, id = payload.id }
  }
}

register "device/{device}" {
  fields = { blob = string }

  # written once, as in tele/plug_7/blob  ?? raw
  bind "mqtt" "tele/{device}/blob" {
    direction = "in"
    codec     = text
    map       = { blob = payload }
  }
}

register "uptime" {
  fields = { value = number }

  # written once, as in uptime  1234
  bind "mqtt" "uptime" {
    direction = "in"
    codec     = number
    map       = { value = payload }
  }
}
