// A SOCKS5 proxy into WireGuard without a device of the kernel's: wireguard-go with gVisor's TCP/IP stack, joined by wireguard-go's own package
// netstack, as wireproxy and others are made. It serves what the benchmark asks for and no more: CONNECT to an IPv4 address, without credentials,
// policy or record. Everything that could be tuned is as those libraries have it.
//
// The configuration comes on stdin, in the words of wireguard-go's UAPI, up to an empty line. The proxy's address is then printed, and the
// end of stdin ends it. With the argument "version" it only says which libraries it is made from.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/netstack"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "version" {
		fmt.Println(version())
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "netstack:", err)
		os.Exit(1)
	}
}

func version() string {
	parts := []string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			switch module.Path {
			case "golang.zx2c4.com/wireguard", "gvisor.dev/gvisor":
				parts = append(parts, module.Path+" "+module.Version)
			}
		}
		parts = append(parts, info.GoVersion)
	}
	return strings.Join(parts, ", ")
}

func run() error {
	if len(os.Args) != 3 {
		return errors.New("usage: netstack ADDRESS MTU, the configuration on stdin")
	}
	address, err := netip.ParseAddr(os.Args[1])
	if err != nil {
		return err
	}
	mtu, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return err
	}
	stdin := bufio.NewReader(os.Stdin)
	config, err := configuration(stdin)
	if err != nil {
		return err
	}
	tun, network, err := netstack.CreateNetTUN([]netip.Addr{address}, nil, mtu)
	if err != nil {
		return err
	}
	wireguard := device.NewDevice(tun, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	if err := wireguard.IpcSet(config); err != nil {
		return err
	}
	if err := wireguard.Up(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	go serve(listener, network)
	_, err = io.Copy(io.Discard, stdin)
	return err
}

func configuration(stdin *bufio.Reader) (string, error) {
	var config strings.Builder
	for {
		line, err := stdin.ReadString('\n')
		if err != nil {
			return "", err
		}
		if line == "\n" {
			return config.String(), nil
		}
		config.WriteString(line)
	}
}

func serve(listener net.Listener, network *netstack.Net) {
	for {
		client, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "netstack:", err)
			return
		}
		go func() {
			if err := session(client.(*net.TCPConn), network); err != nil {
				fmt.Fprintln(os.Stderr, "netstack:", err)
			}
		}()
	}
}

// session is one client from its greeting (RFC 1928, 3) to the end of both directions.
func session(client *net.TCPConn, network *netstack.Net) error {
	defer client.Close()
	greeting := make([]byte, 3)
	if _, err := io.ReadFull(client, greeting); err != nil {
		return err
	}
	if greeting[0] != 5 || greeting[1] != 1 || greeting[2] != 0 {
		return errors.New("not a greeting of SOCKS5 with one method, none")
	}
	if _, err := client.Write([]byte{5, 0}); err != nil {
		return err
	}
	request := make([]byte, 10)
	if _, err := io.ReadFull(client, request); err != nil {
		return err
	}
	if request[0] != 5 || request[1] != 1 || request[3] != 1 {
		return errors.New("not a CONNECT to an IPv4 address")
	}
	target := netip.AddrPortFrom(netip.AddrFrom4([4]byte(request[4:8])), binary.BigEndian.Uint16(request[8:]))
	reply := []byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	remote, err := network.DialTCPAddrPort(target)
	if err != nil {
		reply[1] = 1
		_, _ = client.Write(reply)
		return err
	}
	defer remote.Close()
	if _, err := client.Write(reply); err != nil {
		return err
	}
	relay(client, remote)
	return nil
}

// relay copies in both directions until both have ended; the end of one is passed on. A client that goes away ends both.
func relay(client *net.TCPConn, remote *gonet.TCPConn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := io.Copy(client, remote)
		if err != nil {
			remote.Close()
		}
		client.CloseWrite()
	}()
	_, err := io.Copy(remote, client)
	if err != nil {
		client.Close()
	}
	remote.CloseWrite()
	<-done
}
