# Zigbee devices behind zigbee2mqtt.
#
# What a device reports and what it is told are two fields, in two binds. One field would chase its
# own echo through the device: the lamp reports OFF while the command ON is still on its way.
#
#   curl -X PATCH http://gateway/v1/zigbee/lamp -d '{"wanted":"ON"}'
#   → zigbee2mqtt/lamp/set {"state":"ON"} → the lamp → zigbee2mqtt/lamp {"state":"ON",…}

# The bridge speaks of itself below this; that is no device.
ignore "mqtt" "zigbee2mqtt/bridge/{topic...}" {}
ignore "mqtt" "zigbee2mqtt/bridge" {}

register "zigbee/{device}" {
  # Reports: every member is a field (state, brightness, battery, linkquality, …).
  bind "mqtt" "zigbee2mqtt/{device}" {
    direction = "in"
  }

  # Commands: only what is wanted, and only if something is.
  bind "mqtt" "zigbee2mqtt/{device}/set" {
    direction = "out"
    when      = can(payload.state) || can(payload.brightness)
    out = {
      state      = self.wanted
      brightness = self.wanted_brightness
    }
  }

  # Applications see both and write what they want.
  bind "http" "/v1/zigbee/{device}" {}
}

test "a lamp reports, and nothing goes back to it" {
  given = { "zigbee/lamp" = { battery = 80 } }
  send  = { mqtt = "zigbee2mqtt/lamp", payload = { state = "ON" } }
  want  = { "zigbee/lamp" = { battery = 80, state = "ON" } }
  told  = { http = "/v1/zigbee/lamp", mqtt = [] }
}

test "an application wants something" {
  send = { http = "/v1/zigbee/lamp", verb = "merge", payload = { wanted = "ON" } }
  want = { "zigbee/lamp" = { wanted = "ON" } }
  told = { mqtt = { "zigbee2mqtt/lamp/set" = { state = "ON" } } }
}

test "the bridge is no device" {
  send    = { mqtt = "zigbee2mqtt/bridge", payload = { state = "online" } }
  want    = { "zigbee/bridge" = null }
  told    = {}
  refused = "no bind"
}
