"""Prints the hottest rows over HTTP: python3 heatmap.py http://127.0.0.1:7501

Needs only the standard library. Where the cluster has an admin token, set KEYVIZ_TOKEN.
"""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request


def call(path, **parameters):
    url = f"{sys.argv[1]}{path}?{urllib.parse.urlencode(parameters)}"
    request = urllib.request.Request(url)
    if token := os.environ.get("KEYVIZ_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        sys.exit(f"{problem['code']}: {problem['message']}")


matrix = call("/api/v1/matrix", series="writes", max_rows=64)
print(matrix["total"], "writes,", matrix["responded"], "of", matrix["expected"], "nodes")
for node in matrix["nodes"]:
    if not node["ok"]:
        print("node", node["id"], "is missing:", node["error"])
for row in sorted(matrix["rows"], key=lambda row: -sum(row["values"]))[:5]:
    print(f"{sum(row['values']):10}  {row['label']}")
