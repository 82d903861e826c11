#!/usr/bin/env bash
# Fetches the jars of Apache Kafka, with which tests start a real broker: from Maven Central, some 43 MB, into the cache
# below node_modules. Does nothing where they are.
set -euo pipefail
cd "$(dirname "$0")/.."

version=4.1.2
folder=node_modules/.cache/kafka/$version
if [ -e "$folder/libs/kafka_2.13-$version.jar" ]; then exit 0; fi

draft=$(mktemp -d)
trap 'rm -rf "$draft"' EXIT
cat > "$draft/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>test</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
  </dependencies>
</project>
POM
mvn -q -B -f "$draft/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$draft/libs"
rm -rf "$folder"
mkdir -p "$folder"
mv "$draft/libs" "$folder/libs"
