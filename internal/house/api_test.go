// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package house_test

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSameAPIEverywhere: a program that compiles on one system compiles on the
// others, and finds the same constants and struct tags there. What a system lacks,
// it answers with errors.ErrUnsupported.
func TestSameAPIEverywhere(t *testing.T) {
	all, _ := folders(t)
	var public []string
	for dir, f := range all {
		if f.public(dir) {
			public = append(public, dir)
		}
	}
	require.NotEmpty(t, public)
	linux := compiled(t, "linux", public)
	for _, system := range []string{"windows", "darwin"} {
		other := compiled(t, system, public)
		for _, dir := range public {
			want := api(linux[dir])
			require.NotEmpty(t, want, dir)
			require.Equal(t, strings.Join(want, "\n"), strings.Join(api(other[dir]), "\n"), "%s: linux (want) and %s (got)", dir, system)
		}
	}
}

// compiled returns packages by their folder, as the compiler has them for a system.
func compiled(t *testing.T, system string, dirs []string) map[string]*types.Package {
	t.Helper()
	t.Setenv("GOOS", system)
	t.Setenv("CGO_ENABLED", "0")
	args := []string{"list", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}"}
	for _, dir := range dirs {
		args = append(args, "./"+dir)
	}
	exports := map[string]string{}
	for line := range strings.FieldsSeq(run(t, "go", args...)) {
		name, file, _ := strings.Cut(line, "=")
		exports[name] = file
	}
	imp := importer.ForCompiler(token.NewFileSet(), "gc", func(name string) (io.ReadCloser, error) { return os.Open(exports[name]) })
	pkgs := map[string]*types.Package{}
	for _, dir := range dirs {
		pkg, err := imp.Import(module + "/" + dir)
		require.NoError(t, err)
		pkgs[dir] = pkg
	}
	return pkgs
}

// api describes what a package exports: the objects, and the fields and methods
// that are reached through their types, with those of what is embedded.
func api(pkg *types.Package) (lines []string) {
	for _, name := range pkg.Scope().Names() {
		if !token.IsExported(name) {
			continue
		}
		switch obj := pkg.Scope().Lookup(name).(type) {
		case *types.Const:
			lines = append(lines, obj.String()+" = "+obj.Val().ExactString())
		case *types.TypeName:
			lines = append(lines, typeLine(obj))
			lines = append(lines, members(obj.Name(), obj.Type())...)
		default: // with a type that may not be exported
			lines = append(lines, obj.String())
			lines = append(lines, members(obj.Name(), obj.Type())...)
		}
	}
	return lines
}

// typeLine describes a type but for the members of a struct.
func typeLine(obj *types.TypeName) string {
	line := "type " + obj.Name()
	if obj.IsAlias() {
		line += " = " + types.Unalias(obj.Type()).String()
	}
	if typ, ok := obj.Type().(interface{ TypeParams() *types.TypeParamList }); ok {
		for param := range typ.TypeParams().TypeParams() {
			line += " [" + param.String() + " " + param.Constraint().String() + "]"
		}
	}
	if _, ok := obj.Type().Underlying().(*types.Struct); ok {
		line += " struct"
	} else {
		line += " " + obj.Type().Underlying().String()
	}
	if types.Comparable(obj.Type()) {
		line += ", comparable"
	}
	return line
}

// members lists the exported fields and methods of a type.
func members(name string, typ types.Type) (lines []string) {
	tags := map[*types.Var]string{}
	fields(tags, typ, map[types.Type]bool{})
	for field, tag := range tags {
		obj, _, indirect := types.LookupFieldOrMethod(typ, true, nil, field.Name())
		if obj != field {
			continue // shadowed, or ambiguous
		}
		line := "field " + name + "." + field.Name() + " " + field.Type().String() + " " + tag
		if field.Embedded() {
			line += ", embedded"
		}
		if indirect {
			line += ", through a pointer"
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	if _, ok := typ.(*types.Pointer); !ok && !types.IsInterface(typ) {
		lines = append(lines, methods("(*"+name+")", types.NewPointer(typ))...)
	}
	return append(lines, methods(name, typ)...)
}

func methods(name string, typ types.Type) (lines []string) {
	for sel := range types.NewMethodSet(typ).Methods() {
		if sel.Obj().Exported() {
			lines = append(lines, "method "+name+"."+sel.Obj().Name()+" "+sel.Type().String())
		}
	}
	return lines
}

// fields notes the exported fields of a struct and of what it embeds, with their
// tags.
func fields(tags map[*types.Var]string, typ types.Type, seen map[types.Type]bool) {
	if p, ok := typ.Underlying().(*types.Pointer); ok {
		typ = p.Elem()
	}
	s, ok := typ.Underlying().(*types.Struct)
	if !ok || seen[typ] {
		return
	}
	seen[typ] = true
	for i := range s.NumFields() {
		f := s.Field(i)
		if f.Exported() {
			tags[f] = s.Tag(i)
		}
		if f.Embedded() {
			fields(tags, f.Type(), seen)
		}
	}
}

// The description is another where a program might notice, and only there.
func TestAPITellsDifferences(t *testing.T) {
	const promoted = "type in struct{ N int; t *in }; func (in) A() {}; func (*in) B() {}; type T struct{ "
	for name, c := range map[string]struct{ one, other string }{
		"const value":       {"const C = 1", "const C = 2"},
		"const type":        {"const C = 1", "const C int = 1"},
		"string value":      {`const C = "` + strings.Repeat("a", 100) + `b"`, `const C = "` + strings.Repeat("a", 100) + `c"`},
		"var type":          {"var V int", "var V int32"},
		"var's methods":     {"type t int; func (t) M() {}; var V t", "type t int; func (t) N() {}; var V t"},
		"var's fields":      {"var V struct{ A int }", "var V struct{ B int }"},
		"signature":         {"func F(a int) {}", "func F(a ...int) {}"},
		"constraint":        {"func F[T any](T) {}", "func F[T comparable](T) {}"},
		"type's constraint": {"type T[P ~int] struct{ F P }", "type T[P ~int | ~uint] struct{ F P }"},
		"alias":             {"type T = int", "type T int"},
		"alias of what":     {"type a struct{ N int }; type b struct{ N int }; type T = a", "type a struct{ N int }; type b struct{ N int }; type T = b"},
		"alias of a struct": {"type a struct{ N int }; type T = a", "type a struct{ N int }; type T a"},
		"alias's field":     {"type a struct{ N int }; type T = a", "type a struct{ N uint }; type T = a"},
		"underlying":        {"type T int", "type T uint"},
		"interface":         {"type T interface{ M() }", "type T interface{ M(); N() }"},
		"sealed interface":  {"type T interface{ M() }", "type T interface{ M(); n() }"},
		"field":             {"type T struct{ F int }", "type T struct{ F uint }"},
		"another field":     {"type T struct{ F int }", "type T struct{ F, G int }"},
		"tag":               {"type T struct{ F int `json:\"f\"` }", "type T struct{ F int `json:\"g\"` }"},
		"embedded":          {"type I int; type T struct{ I }", "type I int; type T struct{ I I }"},
		"comparable":        {"type T struct{ a int }", "type T struct{ a []int }"},
		"method":            {"type T int; func (T) M() {}", "type T int; func (T) M() int { return 0 }"},
		"receiver":          {"type T int; func (T) M() {}", "type T int; func (*T) M() {}"},
		"generic's method":  {"type T[P any] struct{}; func (T[P]) M() {}", "type T[P any] struct{}"},
		"promoted":          {promoted + "in }", promoted + "i in }"},
		"promoted pointer":  {promoted + "in }", promoted + "*in }"},
		"promoted's tag":    {"type in struct{ N int `a:\"\"` }; type T struct{ in }", "type in struct{ N int `b:\"\"` }; type T struct{ in }"},
		"tag further up": {
			"type a struct{ N int `x:\"\"` }; type in struct{ a }; type on struct{ N int `y:\"\"` }; type T struct{ in; on }",
			"type a struct{ N int `x:\"\"` }; type in struct{ a }; type on struct{ N int `z:\"\"` }; type T struct{ in; on }",
		},
		"promoted's type": {"type in struct{ N int }; type T struct{ in }", "type in struct{ N uint }; type T struct{ in }"},
		"ambiguous": {
			"type in struct{ N int }; type on struct{ N int }; type T struct{ in }",
			"type in struct{ N int }; type on struct{ N int }; type T struct{ in; on }",
		},
	} {
		require.NotEqual(t, api(checked(t, c.one)), api(checked(t, c.other)), name)
	}
	for name, c := range map[string]struct{ one, other string }{
		"order":    {"const A, B = 1, 2; type T struct{ A, B int }", "type T struct{ B, A int }; const B, A = 2, 1"},
		"hidden":   {"type T struct{ a int }; func f() {}", "type T struct{ b uint `c:\"\"` }; func (T) m() {}; const c = 3"},
		"shadowed": {"type in struct{ N int }; type T struct{ in; N uint }", "type in struct{ N bool }; type T struct{ in; N uint }"},
	} {
		require.Equal(t, api(checked(t, c.one)), api(checked(t, c.other)), name)
	}
}

// checked returns a package of these declarations.
func checked(t *testing.T, declarations string) *types.Package {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "p.go", "package p; "+declarations, parser.SkipObjectResolution)
	require.NoError(t, err)
	pkg, err := new(types.Config).Check("p", fset, []*ast.File{file}, nil)
	require.NoError(t, err)
	return pkg
}
