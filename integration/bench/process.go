package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of CPU times in /proc (sysconf CLK_TCK): 100 a second on every Linux that
// Go supports.
const clockTick = 10 * time.Millisecond

// A process is one program under test, or one that it is compared with.
type process struct {
	name string
	addr string // where clients reach it
	cmd  *exec.Cmd
	log  *bytes.Buffer
	done chan struct{}
}

// start runs a program until stop, and waits until ready says so.
func start(ctx context.Context, name, addr, dir string, ready func() bool, program string, args ...string) (*process, error) {
	p := &process{name: name, addr: addr, cmd: exec.Command(program, args...), log: &bytes.Buffer{}, done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(15 * time.Second)
	for !ready() {
		select {
		case <-p.done:
			return nil, fmt.Errorf("%s ended at its start: %s", name, p.log)
		case <-limit:
			p.stop()
			return nil, fmt.Errorf("%s is not ready after 15 s: %s", name, p.log)
		case <-ctx.Done():
			p.stop()
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
	return p, nil
}

// stop ends the process, at first politely.
func (p *process) stop() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

func listens(addr string) func() bool {
	return func() bool {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	}
}

func answers(url string) func() bool {
	return func() bool {
		resp, err := http.Get(url)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
}

// cpu gives the CPU time that the process and its children have used, to 10 ms; 0 where there is
// no /proc.
func (p *process) cpu() time.Duration {
	var ticks int64
	for _, pid := range p.family() {
		if stat, err := readStat(pid); err == nil {
			ticks += stat.utime + stat.stime
		}
	}
	return time.Duration(ticks) * clockTick
}

// rss gives the resident memory of the process and its children in bytes.
func (p *process) rss() int64 {
	var total int64
	for _, pid := range p.family() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(text))
		if len(fields) > 1 {
			pages, _ := strconv.ParseInt(fields[1], 10, 64)
			total += pages * int64(os.Getpagesize())
		}
	}
	return total
}

// family is the process with its children: nginx works in those.
func (p *process) family() []int {
	own := p.cmd.Process.Pid
	pids := []int{own}
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		pid, err := strconv.Atoi(filepath.Base(entry))
		if err != nil {
			continue
		}
		if stat, err := readStat(pid); err == nil && stat.parent == own {
			pids = append(pids, pid)
		}
	}
	return pids
}

type stat struct {
	parent       int
	utime, stime int64 // clock ticks
}

var errStat = errors.New("not the form of /proc/PID/stat")

// readStat reads fields 4, 14 and 15 of /proc/PID/stat (proc(5)).
func readStat(pid int) (stat, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The name, in parentheses, may hold anything.
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return stat{}, errStat
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 13 {
		return stat{}, errStat
	}
	parent, err1 := strconv.Atoi(fields[1])
	utime, err2 := strconv.ParseInt(fields[11], 10, 64)
	stime, err3 := strconv.ParseInt(fields[12], 10, 64)
	return stat{parent, utime, stime}, errors.Join(err1, err2, err3)
}

// freeAddr gives a loopback address that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// raiseFiles lets this process and those it starts have as many files open as the system allows.
func raiseFiles() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// quiet waits until a process has said something, and then rests.
func (l *lab) quiet(p *process, said string) error {
	for !strings.Contains(p.log.String(), said) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
	for before := p.cpu(); ; before = p.cpu() {
		select {
		case <-time.After(time.Second):
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
		if p.cpu()-before < 50*time.Millisecond {
			return nil
		}
	}
}
