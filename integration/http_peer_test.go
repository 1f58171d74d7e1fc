package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A backend is a real HTTP server that keeps documents and remembers every write.
type backend struct {
	addr string
	etag bool // it gives and checks entity tags

	mu      sync.Mutex
	docs    map[string]string
	version map[string]int
	writes  []write
	changed chan struct{}
	srv     *http.Server
}

// A write is one request that changed, or tried to change, a document.
type write struct {
	method, path, body string
	ours               bool // it bears a gateway's mark
	status             int
}

func (w write) String() string {
	return fmt.Sprintf("%s %s %s -> %d", w.method, w.path, w.body, w.status)
}

func startBackend(t testing.TB, port int, etag bool) *backend {
	t.Helper()
	b := &backend{addr: loopback(port), etag: etag, docs: map[string]string{}, version: map[string]int{}, changed: make(chan struct{})}
	b.up(t)
	t.Cleanup(b.down)
	return b
}

func (b *backend) up(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	b.srv = &http.Server{Handler: b}
	go b.srv.Serve(l)
}

func (b *backend) down() { b.srv.Close() }

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away: nothing was asked for
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	path := r.URL.Path
	doc, there := b.docs[path]
	tag := fmt.Sprintf(`"%d"`, b.version[path])
	status := http.StatusMethodNotAllowed
	reply := ""
	switch {
	case b.etag && r.Header.Get("If-Match") != "" && (!there || r.Header.Get("If-Match") != tag && r.Header.Get("If-Match") != "*"),
		b.etag && r.Header.Get("If-None-Match") == "*" && there && r.Method == http.MethodPut:
		status = http.StatusPreconditionFailed
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		status, reply = http.StatusOK, doc
		if !there {
			status, reply = http.StatusNotFound, ""
		}
	case r.Method == http.MethodPut:
		status = http.StatusNoContent
		if !there {
			status = http.StatusCreated
		}
		b.docs[path] = string(body)
		b.version[path]++
	case r.Method == http.MethodPost:
		status = http.StatusOK
	case r.Method == http.MethodDelete:
		status = http.StatusNoContent
		if !there {
			status = http.StatusNotFound
		}
		delete(b.docs, path)
		b.version[path]++
	}
	if _, there := b.docs[path]; there && b.etag && status < 300 {
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, b.version[path]))
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		b.writes = append(b.writes, write{r.Method, path, string(body), r.Header.Get("Spookgw-Origin") != "", status})
		close(b.changed)
		b.changed = make(chan struct{})
	}
	if reply != "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	io.WriteString(w, reply)
}

// put changes a document behind everybody's back.
func (b *backend) put(path, doc string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.docs[path] = doc
	b.version[path]++
	close(b.changed)
	b.changed = make(chan struct{})
}

// doc gives the document at a path, "" if there is none.
func (b *backend) doc(path string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.docs[path]
}

// wrote lists the writes to a path so far.
func (b *backend) wrote(path string) []write {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.writes), func(w write) bool { return w.path != path })
}

// becomes waits until the document at path is want, "" meaning gone.
func (b *backend) becomes(t testing.TB, path, want string) {
	t.Helper()
	b.mu.Lock()
	for b.docs[path] != want {
		got, changed := b.docs[path], b.changed
		b.mu.Unlock()
		if !arrives(changed) {
			t.Fatalf("HTTP server %s: got %q, want %q; writes: %v", path, got, want, b.wrote(path))
		}
		b.mu.Lock()
	}
	b.mu.Unlock()
}

// startNginx runs a real HTTP server that stores documents below dir by WebDAV.
func startNginx(t testing.TB, dir string, port int) *process {
	t.Helper()
	path := peer(t, "nginx", "nginx")
	if _, version, _ := run(t, "", path, "-V"); !strings.Contains(version, "http_dav_module") {
		t.Skip("nginx with its dav module not installed")
	}
	if err := os.MkdirAll(filepath.Join(dir, "docs"), 0o755); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "nginx.conf")
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	writeFile(t, conf, fmt.Sprintf(`
%[3]s
daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log stderr info;
events { worker_connections 256; }
http {
  access_log %[1]s/access.log;
  client_body_temp_path %[1]s/body;
  proxy_temp_path %[1]s/proxy;
  fastcgi_temp_path %[1]s/fastcgi;
  uwsgi_temp_path %[1]s/uwsgi;
  scgi_temp_path %[1]s/scgi;
  default_type application/json;
  server {
    listen 127.0.0.1:%[2]d;
    root %[1]s/docs;
    location / {
      dav_methods PUT DELETE MKCOL;
      create_full_put_path on;
    }
  }
}
`, dir, port, user))
	p := startProcess(t, "nginx", exec.Command(path, "-p", dir, "-c", conf, "-e", "stderr"))
	eventually(t, "nginx listens", func() bool {
		c, err := net.Dial("tcp", loopback(port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return p
}
