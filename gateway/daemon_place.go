package gateway

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// openDoor opens the socket at the place that options, configuration and system agree on.
func (g *Gateway) openDoor(ctx context.Context, config *Config) error {
	path := g.options.Socket
	if path == "" {
		path = config.Daemon.Socket
	}
	if path == "" {
		path = DefaultSocket(g.data)
	}
	l, err := openSocketPath(ctx, path)
	if err != nil {
		return fmt.Errorf("daemon socket: %w", err)
	}
	g.door = newDoor(l, path, g.gatewayCalls(), g.log, func(method, outcome string) {
		g.figures.daemon.WithLabelValues(method, outcome).Inc()
	})
	return nil
}

// The place of the door on a machine with one gateway run by the system.
const systemSocket = "/run/spookgw/daemon.sock"

// DefaultSocket is where the door is when nothing says otherwise: $SPOOKGW_SOCKET;
// /run/spookgw/daemon.sock where that can be made; in $XDG_RUNTIME_DIR; in the data directory.
func DefaultSocket(data string) string {
	if path := os.Getenv("SPOOKGW_SOCKET"); path != "" {
		return path
	}
	dir := filepath.Dir(systemSocket)
	if err := os.Mkdir(dir, 0o755); (err == nil || errors.Is(err, fs.ErrExist)) && writable(dir) {
		return systemSocket
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "spookgw.sock")
	}
	return filepath.Join(data, "daemon.sock")
}

// FindSocket is where a client looks for it: the same places, and the first of them that has one.
func FindSocket() string {
	if path := os.Getenv("SPOOKGW_SOCKET"); path != "" {
		return path
	}
	places := []string{systemSocket}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		places = append(places, filepath.Join(dir, "spookgw.sock"))
	}
	places = append(places, filepath.Join(defaultData, "daemon.sock"))
	for _, path := range places {
		if info, err := os.Stat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
			return path
		}
	}
	return places[len(places)-1]
}

// writable tells whether this process may make files in a directory.
func writable(dir string) bool {
	f, err := os.CreateTemp(dir, ".w")
	if err != nil {
		return false
	}
	_ = f.Close()
	return os.Remove(f.Name()) == nil
}
