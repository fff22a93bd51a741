// Search without a server. A page that is opened as a file may not start a Worker, so its script runs in a hidden frame,
// which passes messages on as a Worker does. The theme would fetch a script for this from the network.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.documentElement.append(this.frame);
      this.inside = this.frame.contentWindow;
      this.inside.postMessage = (data) => this.told(data);
      const script = this.frame.contentDocument.createElement("script");
      script.src = url;
      this.loaded = new Promise((done, failed) => Object.assign(script, { onload: done, onerror: failed }));
      this.frame.contentDocument.documentElement.append(script);
    }
    told(data) {
      const event = new MessageEvent("message", { data });
      this.onmessage?.(event);
      this.dispatchEvent(event);
    }
    async postMessage(data) {
      await this.loaded;
      const event = new MessageEvent("message", { data });
      this.inside.dispatchEvent(event); // calls its onmessage, too
    }
    terminate() {
      this.frame.remove();
    }
  };
}
