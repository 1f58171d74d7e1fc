package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A lab starts the programs of one run, each in a directory of its own, and ends them all.
type lab struct {
	ctx     context.Context
	dir     string
	gateway string // the program
	running []*process
	tidy    []string // directories elsewhere, removed at the end
}

// close ends everything and gives the end of what each program said.
func (l *lab) close() (said string) {
	for i := len(l.running) - 1; i >= 0; i-- {
		l.running[i].stop()
	}
	for _, p := range l.running {
		text := strings.TrimSpace(p.log.String())
		if len(text) > 4000 {
			text = "…" + text[len(text)-4000:]
		}
		if text != "" {
			said += fmt.Sprintf("%s said:\n%s\n", p.name, text)
		}
	}
	for _, dir := range l.tidy {
		os.RemoveAll(dir)
	}
	l.running, l.tidy = nil, nil
	return said
}

// place makes a directory with one file in it.
func (l *lab) place(name, file, text string) (dir string, err error) {
	dir, err = os.MkdirTemp(l.dir, name+"-")
	if err != nil {
		return "", err
	}
	// nginx and mosquitto may give up being root and must still read it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644)
}

func (l *lab) keep(p *process, err error) (*process, error) {
	if err == nil {
		l.running = append(l.running, p)
	}
	return p, err
}

// nginxServer serves GET /1k, GET /1m, POST /post and a WebDAV store below /v1/.
func (l *lab) nginxServer() (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	dir, err := l.place("nginx-server", "nginx.conf", fmt.Sprintf(`%s
  server {
    listen %s;
    location / { root files; }
    location = /post { return 200 "ok\n"; }
    location /v1/ { root files; dav_methods PUT DELETE; create_full_put_path on; }
  }
}
`, nginxHead(), addr))
	if err != nil {
		return nil, err
	}
	files := filepath.Join(dir, "files")
	if shm, err := os.MkdirTemp("/dev/shm", "spookgw-bench-"); err == nil {
		// The server's disk is not what is measured.
		l.tidy = append(l.tidy, shm)
		files = shm
		if err := os.Chmod(shm, 0o755); err != nil {
			return nil, err
		}
		if err := os.Symlink(shm, filepath.Join(dir, "files")); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Join(files, "v1"), 0o777); err != nil {
		return nil, err
	}
	for name, size := range map[string]int{"1k": 1 << 10, "1m": 1 << 20} {
		if err := os.WriteFile(filepath.Join(files, name), []byte(strings.Repeat("x", size)), 0o644); err != nil {
			return nil, err
		}
	}
	return l.keep(start(l.ctx, "nginx as server", addr, dir, listens(addr), "nginx", "-p", dir, "-c", "nginx.conf"))
}

// nginxProxy passes everything to upstream, as a busy site would have it: connections kept.
func (l *lab) nginxProxy(upstream string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	dir, err := l.place("nginx-proxy", "nginx.conf", fmt.Sprintf(`%s
  upstream server { server %s; keepalive 128; keepalive_requests 100000000; }
  server {
    listen %s;
    location / {
      proxy_pass http://server;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }
  }
}
`, nginxHead(), upstream, addr))
	if err != nil {
		return nil, err
	}
	return l.keep(start(l.ctx, "nginx as proxy", addr, dir, listens(addr), "nginx", "-p", dir, "-c", "nginx.conf"))
}

func nginxHead() string {
	head := `daemon off;
worker_processes auto;
pid nginx.pid;
error_log stderr crit;
events { worker_connections 8192; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 600s;
  keepalive_requests 100000000;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
`
	if os.Geteuid() == 0 {
		return "user root;\n" + head
	}
	return head
}

// haproxy passes everything to upstream in mode http or tcp.
func (l *lab) haproxy(mode, upstream string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	options := ""
	if mode == "http" {
		options = "  option http-keep-alive\n"
	}
	dir, err := l.place("haproxy", "haproxy.cfg", fmt.Sprintf(`global
  maxconn 8192
defaults
  mode %s
%s  timeout connect 5s
  timeout client 10m
  timeout server 10m
frontend clients
  bind %s
  default_backend servers
backend servers
  server one %s
`, mode, options, addr, upstream))
	if err != nil {
		return nil, err
	}
	return l.keep(start(l.ctx, "haproxy", addr, dir, listens(addr), "haproxy", "-db", "-q", "-f", filepath.Join(dir, "haproxy.cfg")))
}

// mosquitto is a broker that holds nothing back: no limit of its own on what is in flight.
func (l *lab) mosquitto() (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	host, port, _ := strings.Cut(addr, ":")
	dir, err := l.place("mosquitto", "mosquitto.conf", fmt.Sprintf(`listener %s %s
allow_anonymous true
persistence false
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
log_dest none
`, port, host))
	if err != nil {
		return nil, err
	}
	return l.keep(start(l.ctx, "mosquitto", addr, dir, listens(addr), "mosquitto", "-c", filepath.Join(dir, "mosquitto.conf")))
}

// mappings are in force here by protocol, so that an unmapped operation has been looked up.
var mappings = map[string]string{
	"http": `bind "http" "/v1/{site}/{sensor}" {}`,
	"mqtt": `bind "mqtt" "sensors/{site}/{sensor}" {}`,
	"sql":  "bind \"sql\" \"sensors\" {\n    key = { site = payload.site, sensor = payload.name }\n  }",
}

// spookgw is a gateway with one wrapper: a relay, or without upstream the server itself.
func (l *lab) spookgw(protocol, upstream string) (*process, error) {
	return l.spookgwWith(protocol, upstream, "register \"site/{site}/{sensor}\" {\n  fields = { value = number }\n  "+mappings[protocol]+"\n}\n")
}

// spookgwWith is one with a mapping of its own, and more settings of the wrapper.
func (l *lab) spookgwWith(protocol, upstream, text string, settings ...string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	health, err := freeAddr()
	if err != nil {
		return nil, err
	}
	stand := "anonymous = \"write\""
	if upstream != "" {
		stand = fmt.Sprintf("upstream = %q", upstream)
	}
	stand = strings.Join(append([]string{stand}, settings...), "\n  ")
	dir, err := l.place("spookgw", "gateway.hcl", fmt.Sprintf(`data = "data"
wrapper %q "bench" {
  listen = %q
  %s
}
daemon {
  socket    = "socket"
  websocket = %q
}
`, protocol, addr, stand, health))
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(dir, "mappings.d"), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "mappings.d", "bench.hcl"), []byte(text), 0o644); err != nil {
		return nil, err
	}
	return l.keep(start(l.ctx, "spookgw", addr, dir, answers("http://"+health+"/readyz"), l.gateway, "run", "--config", "gateway.hcl"))
}
