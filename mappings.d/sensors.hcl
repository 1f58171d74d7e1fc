# Sensors: one register each, whatever protocol speaks of it.
#
#   mosquitto_pub -t sensors/berlin/oven-3 -m '{"value":21.5}'
#   curl http://gateway/v1/berlin/oven-3
#
# The register is open: any member of the payload becomes a field. To close and type it, add
#   fields = { value = number, unit = string, at = time }

register "site/{site}/{sensor}" {
  bind "mqtt" "sensors/{site}/{sensor}" {}
  bind "http" "/v1/{site}/{sensor}" {}
}
