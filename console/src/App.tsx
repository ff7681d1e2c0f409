import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import type { Feed } from "./feed";
import { Header } from "./parts/Header";
import { Notice } from "./parts/Notice";
import type { Snapshot } from "./snapshot";
import { useAddress, useFeed } from "./state";
import { Jobs } from "./views/Jobs";
import { Overview } from "./views/Overview";
import { Playground } from "./views/Playground";
import { Scaling } from "./views/Scaling";
import { Workers } from "./views/Workers";

export interface ViewProps {
  feed: Feed;
  detail: string;
}

interface Page {
  key: string;
  title: string;
  view: ComponentType<ViewProps>;
  /** Whether what it shows is there at all; null: nothing is known yet. */
  there: (snapshot: Snapshot | null) => boolean;
}

const always = () => true;
const cluster = (snapshot: Snapshot | null) => snapshot?.replica === null;
const PAGES: Page[] = [
  { key: "overview", title: "Overview", view: Overview, there: always },
  { key: "workers", title: "Workers", view: Workers, there: cluster },
  { key: "scaling", title: "Scaling", view: Scaling, there: cluster },
  { key: "jobs", title: "Jobs", view: Jobs, there: (snapshot) => snapshot !== null && snapshot.jobs !== null },
  { key: "playground", title: "Playground", view: Playground, there: always },
];

export function App({ feed }: { feed: Feed }) {
  useFeed(feed);
  const { view, detail } = useAddress();
  const pages = PAGES.filter((each) => each.there(feed.snapshot));
  const { key, title, view: View } = pages.find((each) => each.key === view) ?? pages[0]!;
  useEffect(() => {
    document.title = `${title} · Headrace`;
  }, [title]);
  return (
    <>
      <a class="skip" href="#content" onClick={skip}>
        Skip to content
      </a>
      <Header feed={feed} titles={pages.map((each) => [each.key, each.title])} current={key} />
      <Notice feed={feed} />
      <main id="content" tabIndex={-1}>
        <h1 class="spoken">{title}</h1>
        {feed.snapshot !== null && <View feed={feed} detail={detail} />}
      </main>
    </>
  );
}

/** By hand: the part of the URL behind the # is the view's address. */
function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("content")?.focus();
}
