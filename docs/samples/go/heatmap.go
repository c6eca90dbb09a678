// Prints the hottest rows over HTTP: go run heatmap.go http://127.0.0.1:7501
//
// Needs only the standard library. Where the cluster has an admin token, set KEYVIZ_TOKEN.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"sort"
	"time"
)

type matrix struct {
	Total     uint64 `json:"total"`
	Responded int    `json:"responded"`
	Expected  int    `json:"expected"`
	Nodes     []struct {
		ID    uint64 `json:"id"`
		OK    bool   `json:"ok"`
		Error string `json:"error"`
	} `json:"nodes"`
	Rows []struct {
		Label  string   `json:"label"`
		Values []uint64 `json:"values"`
	} `json:"rows"`
}

func sum(values []uint64) (total uint64) {
	for _, value := range values {
		total += value
	}
	return total
}

func main() {
	request, err := http.NewRequest("GET", os.Args[1]+"/api/v1/matrix?series=writes&max_rows=64", nil)
	if err != nil {
		log.Fatal(err)
	}
	if token := os.Getenv("KEYVIZ_TOKEN"); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	client := http.Client{Timeout: 10 * time.Second}
	answer, err := client.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		var problem struct{ Code, Message string }
		if err := json.NewDecoder(answer.Body).Decode(&problem); err != nil {
			log.Fatal(err)
		}
		log.Fatalf("%s: %s", problem.Code, problem.Message)
	}
	var m matrix
	if err := json.NewDecoder(answer.Body).Decode(&m); err != nil {
		log.Fatal(err)
	}
	fmt.Println(m.Total, "writes,", m.Responded, "of", m.Expected, "nodes")
	for _, node := range m.Nodes {
		if !node.OK {
			fmt.Println("node", node.ID, "is missing:", node.Error)
		}
	}
	sort.Slice(m.Rows, func(a, b int) bool { return sum(m.Rows[a].Values) > sum(m.Rows[b].Values) })
	for i := 0; i < len(m.Rows) && i < 5; i++ {
		fmt.Printf("%10d  %s\n", sum(m.Rows[i].Values), m.Rows[i].Label)
	}
}
