package integration_test

import (
	"bufio"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The documents are held against the program: HCL blocks are validated, commands are run against
// a demo of their own (docs_shell_test.go), make targets and linked files exist.

// A block is one fenced block of a document.
type block struct {
	file string // below the top of the tree
	line int    // of its first line
	lang string
	text string
}

var builtProgram = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "spookgw-docs-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "spookgw")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "./gateway/spookgw")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", &exec.Error{Name: "go build ./gateway/spookgw: " + string(out), Err: err}
	}
	return path, nil
})

// spookgw builds the program once and gives its path.
func spookgw(t *testing.T) string {
	t.Helper()
	path, err := builtProgram()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDocumentsHCL(t *testing.T) {
	tried := 0
	var gateway block // the last one whose first line is `# gateway.hcl`
	for _, b := range documentBlocks(t) {
		if b.lang != "hcl" {
			continue
		}
		tried++
		under := ""
		switch {
		case strings.HasPrefix(b.text, "# gateway.hcl\n"):
			gateway = b
		case strings.HasPrefix(b.text, "# mappings.d/"):
			if under = gateway.text; gateway.file != b.file {
				t.Errorf("%s: no block above it begins with `# gateway.hcl`", b.place())
			}
		}
		t.Run(b.place(), func(t *testing.T) {
			t.Parallel()
			if out, ok := validateBlock(t, b.text, under); !ok {
				t.Errorf("%s does not hold:\n%s", b.place(), out)
			}
		})
	}
	if tried == 0 {
		t.Error("no document shows any HCL; this test sees nothing")
	}
}

// The test of the test: mistakes are found, in each kind of block.
func TestDocumentsHCLFindsMistakes(t *testing.T) {
	for name, text := range map[string]string{
		"gateway":  `wrapper "mqtt" "floor" { listn = "127.0.0.1:1883" }`,
		"mapping":  `register "a/{b}" { hstory = "30d" }`,
		"fragment": "# fragment of bind \"mqtt\" \"a/{b}\"\nmap = { x = pyload.y }",
		"unmarked": `map = { x = payload.y }`,
		"server":   "# mappings.d/a.hcl\nbind \"http\" \"/a/{b}\" {\n  register = \"a/{server}/{b}\"\n}",
	} {
		t.Run(name, func(t *testing.T) {
			if _, ok := validateBlock(t, text, ""); ok {
				t.Errorf("%q passed", text)
			}
		})
	}
}

func TestDocumentsMakeTargets(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("(?:`|^)make ([a-z]+)")
	for _, path := range documents(t) {
		for n, line := range strings.Split(read(t, path), "\n") {
			for _, m := range named.FindAllStringSubmatch(line, -1) {
				if !strings.Contains("\n"+string(makefile), "\n"+m[1]+":") {
					t.Errorf("%s:%d: make %s: the Makefile has no such target", path, n+1, m[1])
				}
			}
		}
	}
}

func TestDocumentsLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)
	for _, path := range documents(t) {
		for n, line := range strings.Split(read(t, path), "\n") {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				if _, err := os.Stat(filepath.Join("..", filepath.Dir(path), m[1])); err != nil {
					t.Errorf("%s:%d: links to %s, which is not there", path, n+1, m[1])
				}
			}
		}
	}
}

// documents lists the tree's documents, below its top.
func documents(t *testing.T) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && (name == "testdata" || name == "node_modules" || len(name) > 2 && name[0] == '.') {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(name, ".md") {
			below, err := filepath.Rel("..", path)
			paths = append(paths, filepath.ToSlash(below))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(paths, "README.md") {
		t.Fatalf("got %q, want README.md among them", paths)
	}
	return paths
}

func documentBlocks(t *testing.T) []block {
	t.Helper()
	var blocks []block
	for _, path := range documents(t) {
		blocks = append(blocks, blocksOf(t, path, read(t, path))...)
	}
	return blocks
}

// blocksOf finds the fenced blocks of one document (CommonMark 0.31, section 4.5; backticks, as
// this tree uses).
func blocksOf(t *testing.T, path, text string) []block {
	t.Helper()
	var blocks []block
	var open *block
	fence := ""
	in := bufio.NewScanner(strings.NewReader(text))
	for n := 1; in.Scan(); n++ {
		line := in.Text()
		trimmed := strings.TrimSpace(line)
		switch {
		case open == nil && strings.HasPrefix(trimmed, "```"):
			lang := strings.TrimLeft(trimmed, "`")
			fence = trimmed[:len(trimmed)-len(lang)]
			open = &block{file: path, line: n + 1, lang: strings.TrimSpace(lang)}
		case open != nil && trimmed == fence:
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	if open != nil {
		t.Errorf("%s:%d: a block that never ends", path, open.line)
	}
	return blocks
}

func (b block) place() string { return b.file + ":" + itoa(b.line) }

// Top-level words of the two kinds of HCL file.
var (
	gatewayWords = []string{"data", "domains", "mappings", "wrapper", "daemon", "sites", "domain", "user", "access", "group", "log", "min_free", "drain"}
	mappingWords = []string{"register", "bind", "ignore", "test"}
)

// validateBlock has the program validate an HCL block as the kind of file that its top-level
// words say it is, in a directory of its own with what it refers to; a mapping under the gateway.hcl given, "": one
// with a wrapper of each protocol.
func validateBlock(t *testing.T, text, under string) (output string, ok bool) {
	t.Helper()
	first, _, _ := strings.Cut(text, "\n")
	if part, marked := strings.CutPrefix(strings.TrimSpace(first), "# fragment of "); marked {
		if text, ok = wrapFragment(part, text); !ok {
			return "got " + first + ", want `# fragment of register` or `# fragment of bind \"…\" \"…\"`", false
		}
	}
	words := topWords(text)
	isGateway, isMapping := len(words) > 0, len(words) > 0
	for _, word := range words {
		isGateway = isGateway && slices.Contains(gatewayWords, word)
		isMapping = isMapping && slices.Contains(mappingWords, word)
	}

	dir := t.TempDir()
	gateway := "wrapper \"http\" \"http\" {\n  listen = \"127.0.0.1:8080\"\n}\nwrapper \"mqtt\" \"mqtt\" {\n  listen = \"127.0.0.1:1883\"\n}\n" +
		"wrapper \"sql\" \"sql\" {\n  upstream = \"postgres://gateway@127.0.0.1/plant\"\n}\n" +
		"wrapper \"ldap\" \"ldap\" {\n  upstream = \"ldap://127.0.0.1\"\n  base     = \"dc=acme,dc=org\"\n}\n"
	mapping := ""
	switch {
	case isGateway:
		gateway = placeFiles(t, dir, text)
	case isMapping:
		if mapping = text; under != "" {
			gateway = placeFiles(t, dir, under)
		}
	default:
		return "its top-level words are " + strings.Join(words, ", ") + ": neither a gateway.hcl (" + strings.Join(gatewayWords, " ") +
			") nor a mapping (" + strings.Join(mappingWords, " ") + "). Mark a part with `# fragment of …` on its first line", false
	}
	write(t, filepath.Join(dir, "gateway.hcl"), gateway)
	if err := os.Mkdir(filepath.Join(dir, "mappings.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "mappings.d", "block.hcl"), mapping)
	cmd := exec.CommandContext(t.Context(), spookgw(t), "validate", "gateway.hcl")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

var bindMarker = regexp.MustCompile(`^bind "[^"]+" "[^"]+"$`)

func wrapFragment(part, text string) (whole string, ok bool) {
	switch {
	case part == "register":
		return "register \"a/{b}\" {\n" + text + "}\n", true
	case bindMarker.MatchString(part):
		// The register is named with every capture that the address has.
		name := "fragment"
		for _, capture := range regexp.MustCompile(`\{(\w+)(\.\.\.)?\}`).FindAllString(part, -1) {
			name += "/" + capture
		}
		return "register \"" + name + "\" {\n" + part + " {\n" + text + "}\n}\n", true
	}
	return "", false
}

// topWords gives the first word of everything that stands outside of braces.
func topWords(text string) []string {
	var words []string
	depth := 0
	inString, inComment := false, false
	lineStart := true
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\n':
			inComment, inString, lineStart = false, false, true
			continue
		case inComment:
		case inString:
			if c == '\\' {
				i++
			} else if c == '"' {
				inString = false
			}
		case c == '"':
			inString = true
		case c == '#' || c == '/' && i+1 < len(text) && text[i+1] == '/':
			inComment = true
		case c == '{' || c == '[' || c == '(':
			depth++
		case c == '}' || c == ']' || c == ')':
			depth--
		case c == ' ' || c == '\t':
			continue
		case depth == 0 && lineStart:
			end := i
			for end < len(text) && (text[end] == '_' || text[end] == '-' || text[end] >= 'a' && text[end] <= 'z') {
				end++
			}
			words = append(words, text[i:end])
		}
		lineStart = false
	}
	return words
}

func read(t *testing.T, below string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", below))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
