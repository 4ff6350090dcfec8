// Load for derper, which is Tailscale's relay: pairs of clients over TLS, one of each sends as fast as it may and the other one counts.
//
// relay_bench starts it with the relay's address, the size of a datagram, the number of pairs and the seconds of a turn. It prints
// "ready", waits for a line, sends, and prints how many datagrams were sent and received, and for how many seconds. It ends by itself where
// the relay does not answer, or takes nothing, for 20 s.
package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// What the relay may take for longer than it should.
const patience = 20 * time.Second

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// A client that is registered, and its address.
func connect(relay string) (*derp.Client, key.NodePublic) {
	// Whose certificate it is does not matter here.
	conn := tls.Client(must(net.Dial("tcp", relay)), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	buffered := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	fmt.Fprintf(buffered, "GET /derp HTTP/1.1\r\nHost: derp\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n%s: 1\r\n\r\n", derp.FastStartHeader)
	if err := buffered.Flush(); err != nil {
		log.Fatal(err)
	}
	private := key.NewNode()
	client := must(derp.NewClient(private, conn, buffered, func(string, ...any) {}))
	// The relay says first that it is there.
	must(client.Recv())
	return client, private.Public()
}

func main() {
	if len(os.Args) != 5 {
		log.Fatal("usage: derp-load ADDRESS SIZE PAIRS SECONDS")
	}
	size, pairs := must(strconv.Atoi(os.Args[2])), must(strconv.Atoi(os.Args[3]))
	turn := time.Duration(must(strconv.ParseFloat(os.Args[4], 64)) * float64(time.Second))
	var sent, received atomic.Int64
	var stop atomic.Bool
	begin, done := make(chan struct{}), make(chan struct{})
	late := time.AfterFunc(patience, func() { log.Fatal("derper does not answer") })
	for range pairs {
		from, _ := connect(os.Args[1])
		to, address := connect(os.Args[1])
		go func() {
			for {
				message, err := to.Recv()
				if err != nil {
					return
				}
				if _, ok := message.(derp.ReceivedPacket); ok {
					received.Add(1)
				}
			}
		}()
		go func() {
			datagram := make([]byte, size)
			<-begin
			for !stop.Load() {
				if from.Send(address, datagram) != nil {
					break
				}
				sent.Add(1)
			}
			done <- struct{}{}
		}()
	}
	late.Stop()
	fmt.Println("ready")
	must(bufio.NewReader(os.Stdin).ReadString('\n'))
	begun := time.Now()
	late = time.AfterFunc(turn+patience, func() { log.Fatal("derper takes no more") })
	close(begin)
	time.Sleep(turn)
	stop.Store(true)
	for range pairs {
		<-done
	}
	late.Stop()
	took := time.Since(begun).Seconds()
	time.Sleep(500 * time.Millisecond)
	fmt.Println(sent.Load(), received.Load(), took)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		log.Fatal(err)
	}
}
