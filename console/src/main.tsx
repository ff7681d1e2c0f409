import "uplot/dist/uPlot.min.css";
import "./style.css";
import { render } from "preact";
import { App } from "./App";
import { Feed } from "./feed";
import { apply } from "./theme";

apply();
const feed = new Feed();
void feed.run();
render(<App feed={feed} />, document.getElementById("app")!);
