#!/bin/sh
# Installs the real programs that the tests and benchmarks talk to, where it may: on Debian and
# its kin, as root. Elsewhere it says what is missing; what needs it is then skipped by name. Quick
# when all is there. PEERS=skip installs nothing. `install.sh bench` also brings the stores that
# only the benchmarks compare with.
#
# The packages of servers start them: this keeps them from it, now and at the next boot, because
# the tests start their own on free ports.
set -eu

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# command or file:packages that bring it. gcc is for the race detector.
wanted='
mosquitto:mosquitto
mosquitto_pub:mosquitto-clients
nginx:nginx
haproxy:haproxy
wrk:wrk
curl:curl
psql:postgresql-client
pgbench:postgresql
nats-server:nats-server
/usr/lib/python3/dist-packages/psycopg2/__init__.py:python3,python3-psycopg2
/usr/lib/python3/dist-packages/psycopg/__init__.py:python3,python3-psycopg
/usr/lib/python3/dist-packages/sqlalchemy/__init__.py:python3,python3-sqlalchemy
slapd:slapd
ldapsearch:ldap-utils
/usr/lib/python3/dist-packages/ldap/__init__.py:python3,python3-ldap
gcc:gcc,libc6-dev
'
if [ "${1:-}" = bench ]; then
	wanted="$wanted
redis-server:redis-server
etcd:etcd-server
pgbouncer:pgbouncer
"
fi

# A Java that is there gets its driver; it is not brought for that.
if command -v javac >/dev/null 2>&1; then
	wanted="$wanted
/usr/share/java/postgresql.jar:libpostgresql-jdbc-java
"
fi
# Debian's node-postgres needs Debian's node; beside another one it comes by that one's npm.
pg_by_npm=
if ! NODE_PATH=/usr/share/nodejs:/usr/local/lib/node_modules:/usr/lib/node_modules node -e "require('pg')" >/dev/null 2>&1; then
	if command -v npm >/dev/null 2>&1; then
		pg_by_npm=yes
	else
		wanted="$wanted
/usr/share/nodejs/pg/package.json:nodejs,node-pg
"
	fi
fi
# A client of directories for Node comes from npm, where that is.
if [ "${PEERS:-}" != skip ] && [ "$(id -u)" = 0 ] && command -v npm >/dev/null 2>&1 && [ ! -d "$(npm root -g)/ldapts" ]; then
	echo "peers: installing ldapts"
	npm install --global --silent --no-fund --no-audit ldapts@7 >/dev/null 2>&1 </dev/null || echo "peers: could not install ldapts. What needs it is skipped by name."
fi

names= packages=
for line in $wanted; do
	{ command -v "${line%%:*}" >/dev/null 2>&1 || [ -e "${line%%:*}" ]; } && continue
	names="$names ${line%%:*}"
	packages="$packages $(echo "${line#*:}" | tr , ' ')"
done
[ -n "$names$pg_by_npm" ] || exit 0

hint="To install: apt-get install$packages"
if [ -n "$pg_by_npm" ]; then
	if [ "${PEERS:-}" = skip ] || [ "$(id -u)" != 0 ]; then
		echo "peers: missing: node-postgres. To install: npm install --global pg"
	else
		echo "peers: installing node-postgres"
		npm install --global --no-audit --no-fund --fetch-retries=1 --fetch-timeout=30000 pg@8 >/dev/null 2>&1 </dev/null ||
			echo "peers: could not install node-postgres. What needs it is skipped by name."
	fi
	[ -n "$names" ] || exit 0
fi
if [ "${PEERS:-}" = skip ]; then
	echo "peers: missing, and PEERS=skip:$names"
	exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
	echo "peers: missing, and this is not a Debian to install them on:$names"
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	echo "peers: missing, and only root may install them:$names"
	echo "$hint"
	exit 0
fi

policy=/usr/sbin/policy-rc.d
log=$(mktemp)
made_policy=
tidy() {
	[ -z "$made_policy" ] || rm -f "$policy"
	rm -f "$log"
}
trap tidy EXIT
trap 'exit 130' INT TERM
if [ ! -e "$policy" ]; then
	made_policy=yes
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi

had_unit() { [ -e "/lib/systemd/system/$1.service" ] || [ -e "/usr/lib/systemd/system/$1.service" ]; }
new_units=
for unit in mosquitto nginx haproxy postgresql slapd pgbouncer redis-server etcd; do
	had_unit "$unit" || new_units="$new_units $unit"
done

echo "peers: installing$packages"
export DEBIAN_FRONTEND=noninteractive
apt="apt-get -q -o Acquire::Retries=2 -o Acquire::http::Timeout=30 -o DPkg::Lock::Timeout=120"
# shellcheck disable=SC2086
if { $apt update && $apt install -y --no-install-recommends $packages; } >"$log" 2>&1 </dev/null; then
	if command -v systemctl >/dev/null 2>&1; then
		for unit in $new_units; do
			had_unit "$unit" && systemctl disable "$unit" >/dev/null 2>&1 || :
		done
	fi
else
	tail -n 20 "$log"
	echo "peers: could not install:$names. What needs them is skipped by name."
	echo "$hint"
fi
