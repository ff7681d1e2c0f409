import type { ComponentType } from "preact";
import { useEffect } from "preact/hooks";
import type { Feed } from "./feed";
import { Header } from "./parts/Header";
import { Notice } from "./parts/Notice";
import { useAddress, useFeed } from "./state";
import { Overview } from "./views/Overview";
import { Playground } from "./views/Playground";
import { Scaling } from "./views/Scaling";
import { Workers } from "./views/Workers";

export interface ViewProps {
  feed: Feed;
  detail: string;
}

const VIEWS: Record<string, { title: string; view: ComponentType<ViewProps> }> = {
  overview: { title: "Overview", view: Overview },
  workers: { title: "Workers", view: Workers },
  scaling: { title: "Scaling", view: Scaling },
  playground: { title: "Playground", view: Playground },
};

export function App({ feed }: { feed: Feed }) {
  useFeed(feed);
  const { view, detail } = useAddress();
  const { title, view: View } = VIEWS[view] ?? VIEWS["overview"]!;
  useEffect(() => {
    document.title = `${title} · Headrace`;
  }, [title]);
  return (
    <>
      <a class="skip" href="#content" onClick={skip}>
        Skip to content
      </a>
      <Header feed={feed} titles={Object.entries(VIEWS).map(([key, each]) => [key, each.title])} current={view} />
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
