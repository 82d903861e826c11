import { describe, expect, it } from "vitest";
import { csvLine } from "../../src/lib/csv.ts";

describe("a line of CSV", () => {
  it("quotes what holds commas, quotes or line ends", () => {
    expect(csvLine(["plain", "a,b", 'say "hi"', "two\nlines", "", 12])).toBe(
      'plain,"a,b","say ""hi""","two\nlines",,12\r\n',
    );
  });

  it("puts an apostrophe before what a spreadsheet would run", () => {
    const cells = ["=1+1", "+cmd", "-x", "@sum(a)", "\tx", "-", "--5", '=HYPERLINK("http://x","y")'];
    expect(csvLine(cells)).toBe(`'=1+1,'+cmd,'-x,'@sum(a),'\tx,'-,'--5,"'=HYPERLINK(""http://x"",""y"")"\r\n`);
  });

  it("leaves numbers alone, below 0 and with decimals too", () => {
    expect(csvLine([-5, "-0.000000001", "12.5"])).toBe("-5,-0.000000001,12.5\r\n");
  });
});
