# Proposed from 13 operations in traffic.jsonl. It maps 13 of them.
#
# Names, types and what belongs together are guesses from what passed. Read it, rename what you like (a register's name is
# for you alone), then: spookgw validate, and spookgw replay with the recording.

register "zigbee2mqtt/{device}" {
  fields = {
    battery           = number
    brightness        = number
    contact           = bool
    humidity          = number
    linkquality       = number
    state             = string
    temperature       = number
    update            = any
    wanted_brightness = number
    wanted_state      = string
  }

  # written 6 times, as in zigbee2mqtt/0x00158d0001a2b3c4  {"contact":true,"battery":100,"linkquality":40}
  bind "mqtt" "zigbee2mqtt/{device}" {
    direction = "in"
    map = {
      battery     = payload.battery
      brightness  = payload.brightness
      contact     = payload.contact
      humidity    = payload.humidity
      linkquality = payload.linkquality
      state       = payload.state
      temperature = payload.temperature
      update      = payload.update
    }
  }

  # written 2 times, as in zigbee2mqtt/desk_lamp/set  {"state":"ON","brightness":50}
  bind "mqtt" "zigbee2mqtt/{device}/set" {
    direction = "in"
    map       = { wanted_brightness = payload.brightness, wanted_state = payload.state }
  }
}

register "zigbee2mqtt/{device}/availability" {
  fields = { state = string }

  # written 2 times, as in zigbee2mqtt/desk_lamp/availability  {"state":"online"}
  bind "mqtt" "zigbee2mqtt/{device}/availability" {
    direction = "in"
  }
}

register "zigbee2mqtt/bridge/info" {
  fields = { coordinator = any, version = string }

  # written once, as in zigbee2mqtt/bridge/info  {"version":"1.40","coordinator":{"type":"x"}}
  bind "mqtt" "zigbee2mqtt/bridge/info" {
    direction = "in"
  }
}

register "zigbee2mqtt/bridge/logging" {
  fields = { level = string, message = string }

  # written once, as in zigbee2mqtt/bridge/logging  {"level":"info","message":"x"}
  bind "mqtt" "zigbee2mqtt/bridge/logging" {
    direction = "in"
  }
}

register "zigbee2mqtt/bridge/state" {
  fields = { state = string }

  # written once, as in zigbee2mqtt/bridge/state  {"state":"online"}
  bind "mqtt" "zigbee2mqtt/bridge/state" {
    direction = "in"
  }
}
