module lattice/bench/derp

go 1.25.3

require tailscale.com v1.92.0

require (
	github.com/go-json-experiment/json v0.0.0-20250813024750-ebf49471dced // indirect
	go4.org/mem v0.0.0-20240501181205-ae6ca9944745 // indirect
	golang.org/x/crypto v0.45.0 // indirect
	golang.org/x/exp v0.0.0-20250620022241-b7579e27df2b // indirect
	golang.org/x/sys v0.38.0 // indirect
	golang.org/x/time v0.11.0 // indirect
)
