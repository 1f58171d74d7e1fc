# A device with a desired and a reported half, as device shadows and digital twins have them.
#
# The device publishes what it is and subscribes to what it should be; applications use HTTP.
#
#   curl -X PUT http://gateway/devices/pump-7/desired -d '{"speed":1200}'
#   → devices/pump-7/desired {"speed":1200}    (retained: a device that was away gets it too)
#   mosquitto_pub -r -t devices/pump-7/reported -m '{"speed":1180}'
#   curl http://gateway/devices/pump-7         {"desired":{"speed":1200},"reported":{"speed":1180}}

register "device/{device}" {
  fields = { desired = any, reported = any }

  bind "mqtt" "devices/{device}/reported" {
    direction = "in"
    map       = { reported = payload }
  }
  bind "mqtt" "devices/{device}/desired" {
    direction = "out"
    retain    = true
    map       = { desired = payload }
  }

  bind "http" "/devices/{device}" {}
  bind "http" "/devices/{device}/desired" {
    map = { desired = payload }
  }
  bind "http" "/devices/{device}/reported" {
    direction = "out"
    map       = { reported = payload }
  }
}

test "a device is told what it should be" {
  given = { "device/pump-7" = { reported = { speed = 0 } } }
  send  = { http = "/devices/pump-7/desired", payload = { speed = 1200 } }
  want  = { "device/pump-7" = { desired = { speed = 1200 }, reported = { speed = 0 } } }
  told  = { mqtt = { "devices/pump-7/desired" = { speed = 1200 } } }
}

test "a device reports" {
  given = { "device/pump-7" = { desired = { speed = 1200 } } }
  send  = { mqtt = "devices/pump-7/reported", payload = { speed = 1180 } }
  told = {
    http = ["/devices/pump-7", { "/devices/pump-7/reported" = { speed = 1180 } }]
    mqtt = []
  }
}
